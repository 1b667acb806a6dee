"""Refine a teacher first and distil it after, or refine the student: does the student inherit what the adapter brought?

    python benchmarks/refine_then_distil.py --out refine

Goes on from a folder of `benchmarks/refine.py`: its base, its adapter (frobenius, replay, seed 0), its rooms. Four
networks are scored on the same 120 photos of rooms that no training has seen, against exact depth:

- the base and the refined base (adapter merged), each as a teacher of a cache of groups of three views of the rooms;
- a student distilled from each of these two caches: the same recipe, seed, groups and steps;
- the student of the unrefined teacher, refined itself after.
"""

import argparse
import json
import logging
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from distill3d import adapters, checkpoints, teachers
from distill3d.cache import CacheReader
from distill3d.data.fit import ImageFit
from distill3d.data.manifest import build_manifest
from distill3d.data.sampling import random_groups
from distill3d.teachers.run import run_teacher
from distill3d.train.bases import base_of, view_depth
from distill3d.train.config import ValidationConfig
from distill3d.train.distil import train
from distill3d.train.recipes import get_recipe
from distill3d.train.refine import finetune
from distill3d.train.refine_config import MixConfig
from distill3d.train.refine_data import RefineSources
from distill3d.train.refine_recipes import get_recipe as get_refine_recipe
from distill3d.train.refine_watch import camera_points, photo_scores

FIT = ImageFit(long_side=112)
ADAPTER = "runs/frobenius-replay-seed0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of benchmarks/refine.py")
    parser.add_argument("--groups", type=int, default=120)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--refine-steps", type=int, default=60)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    torch.set_num_threads(1)
    out, chain = arguments.out, arguments.out / "chain"
    manifest, _ = build_manifest(out / "rooms-train")
    groups = random_groups(manifest, 3, count=arguments.groups, seed=0)

    with resources.as_file(resources.files("distill3d").joinpath("weights/place.safetensors")) as path:
        base, info = checkpoints.load_saved(path)
    refined, _ = checkpoints.load_saved(info.path)
    adapters.load_adapter(out / ADAPTER, refined)
    adapters.merge(refined)
    scores = {}
    for name, model in (("base", base), ("refined", refined)):
        file = checkpoints.save_model(
            chain / f"{name}.safetensors", model, model_name=info.model, config=info.config, meta=info.meta
        )
        scores[f"teacher: {name}"] = score(model, out)
        cache = chain / f"cache-{name}"
        run_teacher(teachers.load(str(file)), manifest, groups, cache, fit=FIT, resume=True, batch_size=4)
        run = chain / f"student-{name}"
        recipe = get_recipe("demo")
        config = replace(
            recipe, steps=arguments.steps, views=3, validation=ValidationConfig(every_steps=0), tensorboard=False
        )
        train(config, cache, run, resume=run if run.is_dir() else None)
        scores[f"student of the {name} teacher"] = score(checkpoints.load_saved(run)[0], out)
    student = chain / "student-base"
    recipe = get_refine_recipe("small")
    config = replace(
        recipe,
        weights=str(student),
        batch=8,
        steps=arguments.refine_steps,
        loss=replace(recipe.loss, error="distance"),
        mix=MixConfig(photos_per_epoch=None),
        validation=ValidationConfig(every_steps=0),
        tensorboard=False,
    )
    run = chain / "student-base-refined"
    finetune(config, RefineSources(photo_caches=[out / "photos-train"]), run, resume=run if run.is_dir() else None)
    model, _ = checkpoints.load_saved(student)
    adapters.load_adapter(run, model)
    adapters.merge(model)
    scores["student of the base teacher, refined after"] = score(model, out)
    for name, found in scores.items():
        print(f"| {name} | {found['photo_depth_rel']:.4f} | {found['photo_boundary_f1']:.4f} |")
    (out / "chain.json").write_text(json.dumps(scores, indent=1) + "\n")


@torch.no_grad()
def score(model: nn.Module, out: Path) -> dict[str, float]:
    """Mean scores of single photos of held-out rooms."""
    reader, found = CacheReader(out / "photos-test"), []
    model.eval()
    for key in reader.keys():  # noqa: SIM118 (a reader is no mapping)
        sample = reader.load(key)
        depth, _ = view_depth(model(sample.views.images), base_of("distill3r"))
        found.append(photo_scores(depth[0, 0], camera_points(sample.prediction)[0, 0, ..., 2], sample.valid[0, 0]))
    return {name: mean(values[name] for values in found) for name in found[0]}


if __name__ == "__main__":
    main()
