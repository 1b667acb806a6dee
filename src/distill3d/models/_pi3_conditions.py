"""What Pi3X may be told besides the photos, brought to the scale and the frame that the network knows."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.geometry.cameras import camera_rays
from distill3d.geometry.poses import invert_pose

SMALLEST_BASELINE = 0.02
"""Poses of a scene without depth keep their size when no camera is further than this from the first one."""


class Conditions(NamedTuple):
    """Conditions of a batch, each with the views that it is known for; None for what nobody knows."""

    depth: Float[Tensor, "batch views 2 height width"] | None
    """Depth over its mean in the scene, and whether it is known."""
    has_depth: Bool[Tensor, "batch views"]
    rays: Float[Tensor, "batch views 2 height width"] | None
    """Viewing direction (x, y) at z = 1."""
    has_rays: Bool[Tensor, "batch views"]
    world_from_camera: Float[Tensor, "batch views 4 4"] | None
    """Relative to view 0, translations over the mean depth."""
    has_pose: Bool[Tensor, "batch views"]


def prepare_conditions(
    images: Float[Tensor, "batch views 3 height width"],
    *,
    depth: Float[Tensor, "batch views height width"] | None,
    intrinsics: Float[Tensor, "batch views 3 3"] | None,
    rays: Float[Tensor, "batch views height width 3"] | None,
    world_from_camera: Float[Tensor, "batch views 4 4"] | None,
    has_depth: Bool[Tensor, "batch views"] | None,
    has_rays: Bool[Tensor, "batch views"] | None,
    has_pose: Bool[Tensor, "batch views"] | None,
) -> Conditions | None:
    """Bring the conditions to the network's scale and frame; None if there are none.

    Raises:
        ConfigError: poses without rays or intrinsics, or both rays and intrinsics.
    """
    if depth is None and intrinsics is None and rays is None and world_from_camera is None:
        return None
    if intrinsics is not None and rays is not None:
        raise ConfigError("Give intrinsics or rays, not both: they say the same.")
    if world_from_camera is not None and intrinsics is None and rays is None:
        raise ConfigError("Poses help only where the viewing rays are known: give intrinsics or rays as well.")
    height, width = images.shape[-2:]
    nowhere = torch.zeros(images.shape[:2], dtype=torch.bool, device=images.device)

    def known(value: Tensor | None, mask: Tensor | None) -> Tensor:
        return nowhere if value is None else ~nowhere if mask is None else mask

    has_depth = known(depth, has_depth)
    has_rays = known(intrinsics if rays is None else rays, has_rays)
    has_pose = known(world_from_camera, has_pose)
    has_pose = has_pose & (has_pose.sum(dim=1, keepdim=True) > 1)  # one pose alone says nothing
    scale = images.new_ones(len(images))
    depth_image = None
    if depth is not None:
        positive = depth > 0
        depth = torch.where(positive, depth, 0.0)
        # All maps that were given decide the scale, also those whose depth then does not count.
        mean = depth.sum(dim=(1, 2, 3)) / positive.sum(dim=(1, 2, 3)).clamp(min=1) + 1e-8
        scale = torch.where(has_depth.any(dim=1), mean, scale)
        depth_image = torch.stack([depth / scale[:, None, None, None], positive.to(depth.dtype)], dim=2)
    ray_image = None
    if intrinsics is not None:
        ray_image = camera_rays(intrinsics, height, width)[..., :2].permute(0, 1, 4, 2, 3)
    elif rays is not None:
        ray_image = (rays[..., :2] / (rays[..., 2:] + 1e-6)).permute(0, 1, 4, 2, 3)
    pose = None
    if world_from_camera is not None:
        pose = invert_pose(world_from_camera[:, :1]).expand_as(world_from_camera) @ world_from_camera
        baseline = torch.linalg.vector_norm(pose[:, 1:, :3, 3], dim=-1)
        if baseline.shape[1]:
            wide = (baseline.amax(dim=1) >= SMALLEST_BASELINE) & ~has_depth.any(dim=1)
            scale = torch.where(wide, baseline.mean(dim=1), scale)
        translation = pose[..., :3, 3:] / scale[:, None, None, None]
        pose = torch.cat([torch.cat([pose[..., :3, :3], translation], dim=-1), pose[..., 3:, :]], dim=-2)
    return Conditions(depth_image, has_depth, ray_image, has_rays, pose, has_pose)
