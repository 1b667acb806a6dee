"""Fin3R in miniature, without a download: which rule of renormalisation helps, and what replay does.

    python benchmarks/refine.py --out refine [--rows ablation aggressive beyond] [--seeds 0 1]

The base is the network that ships with the package, which knows one place. It is refined from exact monocular depth of
other rooms (rendered here), with and without replaying views of its place, once for every rule and seed. Every row is
scored on 120 photos of rooms that no training has seen (single-view depth, boundary F1, feature norms) and on 48
held-out groups of 4 views of the place (depth, points, rotation). What is done already is not done again; `refine.json`
and the tables on stdout hold everything.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from statistics import mean

import torch
from safetensors.torch import load_file

from distill3d import teachers
from distill3d.adapters.config import LoraConfig
from distill3d.data.fit import ImageFit
from distill3d.data.manifest import build_manifest
from distill3d.data.render.write import render_place, render_rooms
from distill3d.data.sampling import nearby
from distill3d.files import read_json
from distill3d.teachers.run import run_teacher
from distill3d.train.logs import read_metrics
from distill3d.train.refine import finetune
from distill3d.train.refine_config import MixConfig, RefineConfig
from distill3d.train.refine_data import RefineSources, cache_photos
from distill3d.train.refine_recipes import get_recipe

FIT = ImageFit(long_side=112)
ENCODER = r"encoder\.blocks\.\d+"
COLUMNS = (
    "feature_norm_pre", "feature_norm", "photo_depth_rel", "photo_boundary_f1", "replay_depth_rel",
    "replay_points_error", "replay_rotation_deg",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what differs from the recipe."""

    rule: str = "frobenius"
    replay: bool = True
    lr: float = 3e-3
    rank: int = 8
    targets: str = rf"{ENCODER}\.attn\.qkv"

    def config(self, seed: int, steps: int) -> RefineConfig:
        recipe = get_recipe("small")
        return replace(
            recipe,
            seed=seed,
            steps=steps,
            lora=LoraConfig(targets=self.targets, rank=self.rank, alpha=self.rank, renormalise=self.rule),
            # The distance itself: what the base was trained with.
            loss=replace(recipe.loss, error="distance"),
            optim=replace(recipe.optim, lr=self.lr),
            batch=8,
            # 150 batches of photos an epoch; every sixth batch is replayed.
            mix=MixConfig(photos_per_epoch=None, replay_per_epoch=60, replay_batch=2, replay_views=4),
            validation=replace(recipe.validation, every_steps=steps, groups=120),
            base_features_every=5,
            tensorboard=False,
        )


ABLATION = {
    "no renormalisation, no replay": Row(rule="none", replay=False),
    "frobenius, no replay": Row(replay=False),
    "no renormalisation, replay": Row(rule="none"),
    "frobenius, replay": Row(),
    "per_row, replay": Row(rule="per_row"),
    "per_qkv_frobenius, replay": Row(rule="per_qkv_frobenius"),
    "spectral, replay": Row(rule="spectral"),
    "activation_qkv, replay": Row(rule="activation_qkv"),
}
AGGRESSIVE = {
    f"{rule}, replay, lr {lr:g}": Row(rule=rule, lr=lr)
    for lr in (6e-2, 2e-2)
    for rule in ("none", "frobenius", "activation_qkv")
}
BEYOND = {
    "proj, replay": Row(targets=rf"{ENCODER}\.attn\.proj"),
    "mlp, replay": Row(targets=rf"{ENCODER}\.mlp\.fc[12]"),
    "qkv, proj and mlp, replay": Row(targets=rf"{ENCODER}\.(attn\.(qkv|proj)|mlp\.fc[12])"),
    "rank 2, replay": Row(rank=2),
    "rank 32, replay": Row(rank=32),
}
GROUPS: dict[str, dict[str, Row]] = {"ablation": ABLATION, "aggressive": AGGRESSIVE, "beyond": BEYOND}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    caches = make_caches(arguments.out)
    with resources.as_file(resources.files("distill3d").joinpath("weights/place.safetensors")) as weights:
        for group in arguments.rows:
            print(f"\n{group}\n{header()}", flush=True)
            for name, row in GROUPS[group].items():
                runs = [
                    run_row(name, row, seed, arguments.steps, caches, str(weights), arguments.out)
                    for seed in arguments.seeds
                ]
                if name == next(iter(GROUPS[group])):
                    print(line("frozen base", [of_base(runs[0])]))
                print(line(name, runs), flush=True)
                store(arguments.out, name, runs)
        base = load_file(weights)
    print("\nchange D of the qkv weights W where nothing is renormalised, one number for each layer")
    for name in (name for group in arguments.rows for name, row in GROUPS[group].items() if row.rule == "none"):
        for seed in arguments.seeds:
            print(lengths(name, seed, base, arguments.out), flush=True)


def make_caches(out: Path) -> dict[str, Path]:
    """Rooms with exact depth as photos and their teacher; the base's own place to replay and to watch."""
    rooms = {split: out / f"rooms-{split}" for split in ("train", "test")}
    render_rooms(rooms["train"], count=400, views=3, size=(112, 112), seed=11)
    render_rooms(rooms["test"], count=40, views=3, size=(112, 112), seed=12, split="test")
    place, _ = build_manifest(render_place(out / "place", num_train=600, num_test=240))
    exact = teachers.load("ground-truth")
    caches = {split: cache_photos(folder, exact, out / f"photos-{split}", fit=FIT) for split, folder in rooms.items()}
    for split, views, count in (("train", 6, 200), ("test", 4, 48)):
        groups = nearby(place, views, count=count, split=split, reach=1.5)
        caches[f"replay-{split}"] = out / f"replay-{split}"
        run_teacher(exact, place, groups, caches[f"replay-{split}"], fit=FIT, resume=True)
    return caches


def run_row(
    name: str, row: Row, seed: int, steps: int, caches: Mapping[str, Path], weights: str, out: Path
) -> dict[str, float]:
    """Refine once, and give the last scores with the largest norms and the last drift seen on the way."""
    folder = run_folder(name, seed, out)
    if not (folder / "summary.json").is_file():
        sources = RefineSources(
            photo_caches=[caches["train"]],
            replay_caches=[caches["replay-train"]] if row.replay else [],
            validation_photos=caches["test"],
            validation_replay=caches["replay-test"],
        )
        config = replace(row.config(seed, steps), weights=weights)
        finetune(config, sources, folder, resume=folder if folder.is_dir() else None)
    records = [record for record in read_metrics(folder) if record["kind"] == "train"]
    scores: dict[str, float] = dict(read_json(folder / "summary.json")["validation"])
    scores["feature_cosine"] = next(r["feature_cosine"] for r in reversed(records) if "feature_cosine" in r)
    return scores


def lengths(name: str, seed: int, base: Mapping[str, torch.Tensor], out: Path) -> str:
    """How much an adapter lengthens its weights: by Frobenius norm, and by the largest singular value."""
    adapter = load_file(run_folder(name, seed, out) / "adapter.safetensors")
    found: dict[str, list[str]] = {"|D|/|W|": [], "|W+D|/|W|": [], "largest singular value": []}
    for key in sorted(key for key in adapter if key.endswith(".lora_A")):
        layer = key.removesuffix(".lora_A")
        weight = base[f"{layer}.weight"].double()
        change = adapter[f"{layer}.lora_B"].double() @ adapter[key].double()  # alpha = rank
        ratios = change.norm() / weight.norm(), (weight + change).norm() / weight.norm()
        spectral = torch.linalg.matrix_norm(weight + change, 2) / torch.linalg.matrix_norm(weight, 2)
        for what, value in zip(found, (*ratios, spectral), strict=True):
            found[what].append(f"{float(value):.3f}")
    return f"{name}, seed {seed}: " + "; ".join(f"{what} {', '.join(values)}" for what, values in found.items())


def run_folder(name: str, seed: int, out: Path) -> Path:
    return out / "runs" / f"{name.replace(', ', '-').replace(' ', '_')}-seed{seed}"


def of_base(scores: Mapping[str, float]) -> dict[str, float]:
    """What a run tells of its frozen base."""
    return {name.removesuffix("_base"): value for name, value in scores.items() if name.endswith("_base")}


def header() -> str:
    return "| row | " + " | ".join(COLUMNS) + " | cosine |\n|---|" + "---:|" * (len(COLUMNS) + 1)


def line(name: str, runs: list[dict[str, float]]) -> str:
    """Means over the seeds, with half the spread where there are two or more."""
    cells = []
    for column in (*COLUMNS, "feature_cosine"):
        values = [run[column] for run in runs if column in run]
        spread = (max(values) - min(values)) / 2 if len(values) > 1 else 0.0
        shown = f"{mean(values):.4g} ±{spread:.2g}" if len(values) > 1 else f"{values[0]:.4g}" if values else "-"
        cells.append(shown)
    return f"| {name} | " + " | ".join(cells) + " |"


def store(out: Path, name: str, runs: list[dict[str, float]]) -> None:
    path = out / "refine.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, name: runs}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
