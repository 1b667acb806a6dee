"""Depth seen from another camera."""

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.geometry.cameras import project_points, unproject_depth
from distill3d.geometry.poses import transform_points


def register_depth(
    depth: Float[Tensor, "height width"],
    intrinsics: Float[Tensor, "3 3"],
    other_intrinsics: Float[Tensor, "3 3"],
    other_from_camera: Float[Tensor, "4 4"],
    other_size: tuple[int, int],
) -> Float[Tensor, "other_height other_width"]:
    """Move every measured pixel into the nearest pixel of another camera; of several in one, the nearest point stays.

    Args:
        depth: planar, 0 = unknown.
        intrinsics: of the camera that measured it, integer pixel centres.
        other_intrinsics: of the other camera.
        other_from_camera: its pose with respect to the first.
        other_size: (height, width) of its picture.

    Returns:
        Planar depth of the other camera, 0 where nothing fell.
    """
    known = depth > 0
    points = transform_points(other_from_camera, unproject_depth(depth, intrinsics))
    pixels, other_depth = project_points(points, other_intrinsics)
    seen = known & (other_depth > 0)
    column, row = pixels[seen].round().long().unbind(dim=-1)
    height, width = other_size
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    registered = torch.full((height * width,), torch.inf, dtype=depth.dtype, device=depth.device)
    target = row[inside] * width + column[inside]
    registered.scatter_reduce_(0, target, other_depth[seen][inside], "amin")
    return torch.where(torch.isfinite(registered), registered, 0.0).reshape(height, width)
