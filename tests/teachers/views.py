"""Annotated scenes small enough to make in a test: a wavy wall seen by a few cameras, exact to the last bit."""

from pathlib import Path

import torch

from distill3d.data.datasets.annotated import write_annotated_scene
from distill3d.data.manifest import Manifest, build_manifest
from distill3d.geometry.cameras import camera_rays
from distill3d.geometry.poses import look_at, pose_from_rt
from distill3d.types import Views


def wall_views(views: int = 3, height: int = 14, width: int = 28, seed: int = 0) -> Views:
    """Cameras before the plane z = 4 of a world whose origin lies far away; every third row has no depth."""
    generator = torch.Generator().manual_seed(seed)
    eye = torch.rand(views, 3, generator=generator, dtype=torch.float64) * 2 - 1
    target = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64) + 0.3 * eye
    up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64).expand(views, 3)
    world_from_camera = look_at(eye, target, up)
    intrinsics = torch.tensor([[0.8 * width, 0, (width - 1) / 2], [0, 0.8 * width, (height - 1) / 2], [0, 0, 1]])
    intrinsics = intrinsics.double().expand(views, 3, 3)
    rays = camera_rays(intrinsics, height, width) @ world_from_camera[:, None, :3, :3].transpose(-1, -2)
    depth = (4 - eye[:, None, None, 2]) / rays[..., 2]  # rays have z = 1 in the camera, so this is planar depth
    hit = eye[:, None, None] + depth[..., None] * rays
    colour = 0.5 + 0.4 * torch.sin(torch.stack([3 * hit[..., 0], 5 * hit[..., 1], 7 * hit[..., 0] + hit[..., 1]], 1))
    depth = depth.clone()
    depth[:, ::3] = 0
    moved = pose_from_rt(torch.eye(3, dtype=torch.float64), torch.tensor([300.0, 20.0, -50.0], dtype=torch.float64))
    return Views(
        images=(colour[None].float() * 255).round() / 255,
        intrinsics=intrinsics[None].float(),
        world_from_camera=(moved @ world_from_camera)[None].float(),
        depth=depth[None].float(),
        valid=torch.ones(1, views, height, width, dtype=torch.bool),
        is_metric=torch.tensor([True]),
    )


def write_scene(root: Path, name: str = "wall", views: int = 8, height: int = 14, width: int = 28) -> Manifest:
    """The same as an annotated scene folder, and a manifest of all scenes in `root`."""
    made = wall_views(views, height, width)
    assert made.intrinsics is not None
    assert made.world_from_camera is not None
    assert made.depth is not None
    write_annotated_scene(
        root / name,
        made.images[0],
        depth=made.depth[0],
        intrinsics=made.intrinsics[0],
        world_from_camera=made.world_from_camera[0],
        split=["train"] * views,
        is_metric=True,
        licence="CC0-1.0",
    )
    return build_manifest(root)[0]
