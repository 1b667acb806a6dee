"""From what a monocular network leaves open (MoGe: scale and a shift of z) to a camera and depth."""

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.errors import GeometryError
from distill3d.geometry.cameras import centred_intrinsics, unproject_depth
from distill3d.geometry.shift import focal_and_shift_from_pointmap
from distill3d.types import Prediction


@torch.no_grad()
def solve_affine(
    prediction: Prediction, *, fov_x_rad: float | None = None, force_projection: bool = True
) -> Prediction:
    """Give every view a pinhole, and points and depth that it sees where they are: what MoGe calls inference.

    The shift is found first, then points behind the camera lose their `valid`, then `metric_scale`, if there is one,
    is multiplied into points and depth (and becomes 1: they are in metres). Values where `valid` is off mean nothing.

    Args:
        prediction: with a `pointmap_camera` that is right up to scale and a shift of z.
        fov_x_rad: horizontal opening between the image's borders where it is known; None estimates it per view.
        force_projection: rebuild the points from depth and intrinsics, so that they lie on the pinhole's rays;
            otherwise they keep the network's own directions.

    Raises:
        GeometryError: there are no camera points.
    """
    points = prediction.pointmap_camera
    if points is None:
        raise GeometryError("an affine prediction needs camera points; this one has none (is the model monocular?)")
    height, width = points.shape[-3:-1]
    known = None
    if fov_x_rad is not None:
        known = points.new_full(points.shape[:-3], width / 2 / math.tan(fov_x_rad / 2))
    focal, shift = focal_and_shift_from_pointmap(points, prediction.valid, known)
    intrinsics = centred_intrinsics(focal, height, width)
    depth = points[..., 2] + shift[..., None, None]
    front = depth > 0
    if force_projection:
        points = unproject_depth(depth, intrinsics)
    else:
        points = torch.cat([points[..., :2], depth[..., None]], dim=-1)
    scale = _per_view(prediction.metric_scale, points)
    return dataclasses.replace(
        prediction,
        pointmap_camera=points * scale[..., None, None, None],
        depth=torch.where(front, depth * scale[..., None, None], 0.0),
        intrinsics=intrinsics,
        valid=front if prediction.valid is None else front & prediction.valid,
        metric_scale=None if prediction.metric_scale is None else torch.ones_like(prediction.metric_scale),
    )


def _per_view(scale: Tensor | None, points: Tensor) -> Float[Tensor, "batch views"]:
    """The metric scale of every view; ones where the model knows none."""
    if scale is None:
        return points.new_ones(points.shape[:2])
    return scale if scale.ndim == 2 else scale[:, None].expand(points.shape[:2])
