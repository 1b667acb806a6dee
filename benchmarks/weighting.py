"""Does weighting by the teacher's confidence help when the teacher errs where it is unsure? Same steps, same samples.

    python benchmarks/weighting.py --out weighting --noise 2 --seeds 0 1

Renders the demo's place, caches the ground-truth teacher with noise (see teachers/noise.py: about a fifth of the pixels
are wrong, systematically too far, and the confidence knows), trains the demo's student with and without weights, and
scores both on held-out views against the exact truth. What is done already is not done again.
"""

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

from distill3d import teachers
from distill3d.checkpoints import load_saved, weights_hash
from distill3d.data.fit import ImageFit
from distill3d.data.manifest import build_manifest
from distill3d.data.render.write import render_place
from distill3d.data.sampling import nearby
from distill3d.eval.run import Method, evaluate
from distill3d.infer.reconstruct import predict
from distill3d.losses.config import DistillLossConfig
from distill3d.teachers.run import run_teacher
from distill3d.train.distil import train
from distill3d.train.recipes import get_recipe

FIT = ImageFit(long_side=112)
SHOWN = ("depth_rel", "depth_delta1", "rotation_to_first_deg", "points_error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--place", type=Path, help="a place that is rendered already")
    parser.add_argument("--noise", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--groups", type=int, default=240)
    parser.add_argument("--held-out", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    torch.set_num_threads(arguments.threads)

    place = arguments.place or render_place(arguments.out / "place")
    manifest, _ = build_manifest(place)
    learned = nearby(manifest, 8, count=arguments.groups, split="train", reach=1.5)
    held_out = nearby(manifest, 4, count=arguments.held_out, split="test", reach=1.5)
    cache = arguments.out / f"cache-noise{arguments.noise:g}"
    run_teacher(teachers.load("ground-truth", noise=arguments.noise), manifest, learned, cache, fit=FIT, resume=True)

    results: dict[str, dict[str, float]] = {}
    for seed in arguments.seeds:
        for weight_by in ("teacher", "none"):
            name = f"noise{arguments.noise:g}-{weight_by}-seed{seed}"
            run = arguments.out / name
            if not (run / "summary.json").is_file():
                recipe = get_recipe("demo")
                # The paper's squared error: the setting in which outliers hurt, and which the paper weights.
                loss = DistillLossConfig(error="squared", weight_by=weight_by, weight_form="balanced")
                validation = replace(recipe.validation, every_steps=0)
                config = replace(recipe, seed=seed, steps=arguments.steps, loss=loss, validation=validation)
                train(config, cache, run, resume=run if run.is_dir() else None)
            student, _ = load_saved(run)
            method = Method(
                predict=lambda views, student=student: predict(student, views),
                settings={"weights_hash": weights_hash(student)},
            )
            scores = evaluate({"student": method}, manifest, held_out, FIT, arguments.out / f"{name}-scores")
            results[name] = {metric: scores.methods["student"].values[metric] for metric in SHOWN}
            print(name, " ".join(f"{metric} {value:.4f}" for metric, value in results[name].items()), flush=True)

    for weight_by in ("teacher", "none"):
        of = [values for name, values in results.items() if f"-{weight_by}-" in name]
        print(
            f"mean of {len(of)}, weight_by {weight_by}:", " ".join(f"{m} {mean(v[m] for v in of):.4f}" for m in SHOWN)
        )
    (arguments.out / f"noise{arguments.noise:g}.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
