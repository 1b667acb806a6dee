"""A cache of a few exact views of a wavy wall: small enough for every test of the loop."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from distill3d.cache import CacheHeader, CacheWriter
from distill3d.geometry.cameras import intrinsics_from_fov, unproject_depth
from distill3d.geometry.poses import invert_pose, transform_points
from distill3d.train.config import CheckpointConfig, DistillConfig, OptimConfig, SamplingConfig, ValidationConfig
from distill3d.types import Prediction, Views

SIZE = 28


def make_cache(
    path: Path, *, samples: int = 6, views: int = 4, seed: int = 0, size: tuple[int, int] = (SIZE, SIZE)
) -> Path:
    """Write a cache of exact labels with poses; the confidence is high everywhere but in a corner."""
    generator = torch.Generator().manual_seed(seed)
    header = CacheHeader(teacher="wall", licence="CC0", seed=seed)
    with CacheWriter(path, header=header) as writer:
        for number in range(samples):
            writer.add(f"wall/{number:03d}", *make_sample(generator, views, size))
    return path


def make_sample(generator: torch.Generator, views: int, size: tuple[int, int]) -> tuple[Views, Prediction]:
    """Views of a random wall from slightly turned cameras, the first at the origin of the world."""
    height, width = size
    depth = (
        2
        + torch.rand(1, views, 1, 1, generator=generator)
        + 0.3 * torch.rand(1, views, height, width, generator=generator)
    )
    depth = depth.half().float()
    intrinsics = intrinsics_from_fov(torch.tensor(math.radians(60)), height, width).expand(1, views, 3, 3)
    local = unproject_depth(depth, intrinsics)
    poses = torch.stack([turned(0.1 * view, 0.2 * view) for view in range(views)])[None]
    world = transform_points(invert_pose(poses[:, :1]) @ poses, local)
    confidence = torch.full((1, views, height, width), 4.0)
    confidence[..., :8, :8] = 1.5
    images = (torch.rand(1, views, 3, height, width, generator=generator) * 255).round() / 255
    views_record = Views(images=images, intrinsics=intrinsics.contiguous(), world_from_camera=poses)
    prediction = Prediction(
        pointmap_world=world,
        pointmap_camera=local,
        confidence_world=confidence,
        confidence_camera=confidence.clone(),
        world_from_camera=poses,
    )
    return views_record, prediction


def turned(angle: float, shift: float) -> Tensor:
    """A camera turned about the vertical axis and moved to the right."""
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = math.cos(angle)
    pose[0, 2], pose[2, 0] = math.sin(angle), -math.sin(angle)
    pose[0, 3] = shift
    return pose


def tiny_config(**changes: object) -> DistillConfig:
    """A run of seconds: the smallest student, two views, no pictures."""
    config = DistillConfig(
        student="distill3r",
        variant="tiny",
        views=2,
        batch=2,
        steps=6,
        precision="fp32",
        device="cpu",
        optim=OptimConfig(lr=1e-3, warmup_steps=2),
        data=SamplingConfig(),
        validation=ValidationConfig(every_steps=0),
        checkpoint=CheckpointConfig(every_steps=0, every_seconds=0, keep=3),
        tensorboard=False,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def run_two_processes(script: Path, *words: object) -> None:
    """Run a script under torchrun, on this machine alone."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--nnodes=1"),
            *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
            *(str(word) for word in (script, *words)),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
