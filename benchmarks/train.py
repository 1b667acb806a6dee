"""How fast the loop trains, and where its time goes: `python benchmarks/train.py [--recipe demo] [--steps 60]`.

The labels are exact views of random walls, so nothing needs to be downloaded; speed does not depend on what they show.
"""

import argparse
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from distill3d.cache import CacheHeader, CacheWriter
from distill3d.geometry.cameras import intrinsics_from_fov, unproject_depth
from distill3d.train.config import ValidationConfig
from distill3d.train.distil import train
from distill3d.train.logs import read_metrics
from distill3d.train.recipes import get_recipe
from distill3d.types import Prediction, Views


def write_walls(path: Path, groups: int, views: int, side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    intrinsics = intrinsics_from_fov(torch.tensor(math.radians(62)), side, side).repeat(1, views, 1, 1)
    with CacheWriter(path, header=CacheHeader(teacher="walls", licence="CC0")) as writer:
        for group in range(groups):
            depth = 2 + torch.rand(1, views, side, side, generator=generator)
            local = unproject_depth(depth, intrinsics)
            poses = torch.eye(4).repeat(1, views, 1, 1)
            poses[0, :, 0, 3] = torch.arange(views) / 4
            world = local + poses[:, :, None, None, :3, 3]
            confidence = torch.full_like(depth, 4.0)
            images = torch.rand(1, views, 3, side, side, generator=generator)
            labels = Prediction(
                pointmap_world=world,
                pointmap_camera=local,
                confidence_world=confidence,
                confidence_camera=confidence,
                world_from_camera=poses,
            )
            writer.add(f"{group:04d}", Views(images=images, intrinsics=intrinsics), labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--side", type=int, default=112, help="of the square images, in pixels")
    parser.add_argument("--views", type=int, default=8, help="of a cached group")
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True, help="the cache in memory")
    arguments = parser.parse_args()
    config = get_recipe(arguments.recipe)
    config = replace(
        config,
        steps=arguments.steps,
        batch=arguments.batch or config.batch,
        workers=arguments.workers,
        data=replace(config.data, memory_mb=config.data.memory_mb if arguments.keep else 0),
        validation=ValidationConfig(every_steps=0),
        tensorboard=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        cache, out = Path(folder) / "cache", Path(folder) / "run"
        write_walls(cache, arguments.groups, arguments.views, arguments.side)
        summary = train(config, cache, out)
        records = [record for record in read_metrics(out) if record["kind"] == "train"]
    # The first pass over the cache decodes it; what follows is the speed of a long run.
    half = len(records) // 2
    passed = records[-1]["seconds"] - records[half]["seconds"]
    steady = (records[-1]["step"] - records[half]["step"]) * config.batch * config.accumulation / passed
    print(f"{config.student} {config.variant}: {summary.parameters / 1e6:.2f} M parameters, {config.views} views of")
    print(f"{arguments.side}x{arguments.side}, batch {config.batch}, {torch.get_num_threads()} threads")
    print(f"samples/s: {summary.samples_per_second:.1f} over all, {steady:.1f} in the second half")
    for part, share in summary.time_shares.items():
        print(f"  {part:<9}{share:7.1%}")


if __name__ == "__main__":
    sys.exit(main())
