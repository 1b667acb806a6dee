"""Cameras for a prediction: intrinsics, poses and depth that agree with its pointmaps, and a statement how well."""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.errors import GeometryError
from distill3d.geometry.cameras import centred_intrinsics, intrinsics_from_fov, unproject_depth
from distill3d.geometry.poses import invert_pose, rebase_poses, transform_points
from distill3d.geometry.solve import focal_from_pointmap, pose_from_pointmap, poses_from_maps
from distill3d.types import Prediction, Views

logger = logging.getLogger(__name__)

PoseMethod = Literal["auto", "model", "similarity", "pnp"]
"""Where poses come from: the model's own, the similarity from local to world map, or PnP on the world map.

"auto" takes the first of these that the prediction allows.
"""
PointSource = Literal["world", "camera"]
"""Which map ends up as `pointmap_world`: the model's own, or its local map put into the world by the pose."""

FALLBACK_FOV_RAD = 1.0
"""Horizontal opening (57 degrees, a phone's main camera) where no view tells its focal length."""
PLAUSIBLE_FOCAL = (0.1, 20.0)
"""Focal lengths beyond these shares of the longer side (157 and 2.9 degrees across) tell of a broken map."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A prediction with every field that a reconstruction needs, and how they were found."""

    prediction: Prediction
    info: dict[str, Any]
    """Ready for JSON; lists have one entry per view of the first sample."""


def complete(
    prediction: Prediction,
    views: Views | None = None,
    *,
    pose_method: PoseMethod = "auto",
    points: PointSource = "world",
    seed: int = 0,
) -> Prediction:
    """Fill in intrinsics, poses, depth and both pointmaps, so that they agree; see `complete_with_info`."""
    return complete_with_info(prediction, views, pose_method=pose_method, points=points, seed=seed).prediction


@torch.no_grad()
def complete_with_info(
    prediction: Prediction,
    views: Views | None = None,
    *,
    pose_method: PoseMethod = "auto",
    points: PointSource = "world",
    seed: int = 0,
) -> Completed:
    """Fill in intrinsics, poses, depth and both pointmaps, so that they agree, and say how well they do.

    The local maps are brought to the world map's scale, and the world is turned so that it is exactly the camera frame
    of view 0. Then `pointmap_world = world_from_camera * pointmap_camera` up to a residual, stated in
    `info["residual"]` as a share of the view's median distance. Intrinsics have square pixels and the principal point
    at the image's centre unless the model gave its own. Depth is 0 where unknown.

    Args:
        views: only their mask is used: padding tells nothing about cameras.
        pose_method: see `PoseMethod`.
        points: see `PointSource`.
        seed: for PnP.

    Raises:
        GeometryError: the prediction does not say where the views are, or lacks what `pose_method` needs.
    """
    world, local = prediction.pointmap_world, prediction.pointmap_camera
    if local is None and prediction.depth is not None and prediction.intrinsics is not None:
        local = unproject_depth(prediction.depth, prediction.intrinsics)
    some = world if world is not None else local
    if some is None:
        raise GeometryError(
            "the prediction has neither pointmaps nor depth with intrinsics: nothing to reconstruct from"
        )
    valid = _usable(prediction, views, some)
    weight = _weight(prediction, some)
    chosen = _choose_method(pose_method, prediction, world, local)

    undetermined: list[int] = []
    scale: Tensor | None = None
    if chosen == "model":
        assert prediction.world_from_camera is not None
        pose = prediction.world_from_camera.float()
        intrinsics = prediction.intrinsics
    elif chosen == "similarity":
        assert local is not None
        assert world is not None
        pose, fit = poses_from_maps(local, world, weight, valid)
        assert fit.determined is not None
        scale = fit.scale
        undetermined = (~fit.determined[0]).nonzero().flatten().tolist()
        intrinsics = prediction.intrinsics
    elif chosen == "pnp":
        assert world is not None
        # Without local maps the first view's world map is the only one in its own camera's frame: one focal for all.
        source = local if local is not None else world[:, :1].expand_as(world)
        intrinsics = _intrinsics(prediction, source, valid if local is not None else valid[:, :1].expand_as(valid))
        pose, undetermined = _pnp_poses(world, intrinsics, valid, seed)
    else:
        pose = torch.eye(4, dtype=some.dtype, device=some.device).expand(*some.shape[:2], 4, 4).clone()
        intrinsics = prediction.intrinsics
    if undetermined:
        logger.warning("the pose of %d views could not be determined: %s", len(undetermined), undetermined)

    camera_from_world = invert_pose(pose)
    if local is None:
        assert world is not None
        local = transform_points(camera_from_world, world)
    if world is None:
        world = transform_points(pose, local)
    if scale is None:
        scale = _local_scale(local, transform_points(camera_from_world, world), valid)
    local = local * scale[..., None, None, None]
    if intrinsics is None:
        intrinsics = _intrinsics(prediction, local, valid)
    residual = _residual(world, transform_points(pose, local), local, valid)
    if points == "camera":
        world = transform_points(pose, local)
    world = transform_points(camera_from_world[:, :1].expand_as(pose), world)
    pose = rebase_poses(pose, 0)
    depth = torch.where(torch.isfinite(local[..., 2]) & (local[..., 2] > 0), local[..., 2], 0.0)
    done = dataclasses.replace(
        prediction,
        pointmap_world=world,
        pointmap_camera=local,
        depth=depth,
        confidence_world=_confidence(prediction, points, depth),
        world_from_camera=pose,
        intrinsics=intrinsics,
    )
    info = {
        "pose_method": chosen,
        "points": points,
        "intrinsics": "model" if prediction.intrinsics is not None else "estimated",
        "focal_px": [round(float(value), 4) for value in intrinsics[0, :, 0, 0]],
        "local_scale": [round(float(value), 6) for value in scale[0]],
        "residual": [round(float(value), 6) for value in residual[0]],
        "undetermined_views": undetermined,
    }
    return Completed(prediction=done, info=info)


def _choose_method(asked: PoseMethod, prediction: Prediction, world: Tensor | None, local: Tensor | None) -> str:
    can = {
        "model": prediction.world_from_camera is not None,
        "similarity": world is not None and local is not None,
        "pnp": world is not None,
    }
    if asked == "auto":
        if world is None and not can["model"]:
            assert local is not None
            if local.shape[1] == 1:
                return "single view"
            raise GeometryError(
                f"the prediction has local maps of {local.shape[1]} views but neither poses nor world pointmaps, so it "
                "does not say where the views are. Give one view, or a model that sees all views together."
            )
        return next(name for name, possible in can.items() if possible)
    if not can[asked]:
        possible_ones = [name for name, possible in can.items() if possible]
        raise GeometryError(f"this prediction has no maps for pose_method={asked!r}; it allows {possible_ones}")
    return asked


def _usable(prediction: Prediction, views: Views | None, points: Tensor) -> Bool[Tensor, "batch views height width"]:
    """Pixels that may speak about cameras: photo, not padding; trusted by the model; finite in every map."""
    valid = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
    for mask in (views.valid if views is not None else None, prediction.valid):
        if mask is not None:
            valid = valid & mask.to(points.device)
    for pointmap in (prediction.pointmap_world, prediction.pointmap_camera):
        if pointmap is not None:
            valid = valid & torch.isfinite(pointmap).all(dim=-1)
    if prediction.pointmap_camera is None and prediction.depth is not None:
        valid = valid & (prediction.depth > 0)
    return valid


def _weight(prediction: Prediction, points: Tensor) -> Float[Tensor, "batch views height width"]:
    """Geometric mean of the confidences that there are; ones without any."""
    known = [value for value in (prediction.confidence_world, prediction.confidence_camera) if value is not None]
    if not known:
        return torch.ones_like(points[..., 0])
    return torch.stack([value.clamp(min=1e-6).log() for value in known]).mean(dim=0).exp()


def _confidence(prediction: Prediction, points: PointSource, depth: Tensor) -> Tensor:
    order = (prediction.confidence_world, prediction.confidence_camera, prediction.confidence_depth)
    if points == "camera":
        order = (prediction.confidence_camera, prediction.confidence_depth, prediction.confidence_world)
    return next((value for value in order if value is not None), torch.ones_like(depth))


def _intrinsics(
    prediction: Prediction, local: Tensor, valid: Bool[Tensor, "batch views height width"]
) -> Float[Tensor, "batch views 3 3"]:
    """The model's own, else what every local map implies; a view that tells nothing gets the others' median."""
    if prediction.intrinsics is not None:
        return prediction.intrinsics
    height, width = local.shape[-3:-1]
    confidence = prediction.confidence_camera if prediction.pointmap_camera is not None else prediction.confidence_world
    if confidence is not None:
        # The least certain tenth is left out, as the reference code of Fast3R does.
        valid = valid & (confidence >= _lowest_tenth(confidence, valid)[..., None, None])
    focal = torch.stack([focal_from_pointmap(local[:, view], valid[:, view]) for view in range(local.shape[1])], dim=1)
    relative = focal / max(height, width)
    good = (relative > PLAUSIBLE_FOCAL[0]) & (relative < PLAUSIBLE_FOCAL[1])  # NaN is not
    guess = intrinsics_from_fov(torch.tensor(FALLBACK_FOV_RAD), height, width)[0, 0].to(focal)
    typical = torch.where(good, focal, torch.nan).nanmedian(dim=1, keepdim=True).values
    typical = torch.where(torch.isfinite(typical), typical, guess)
    if not bool(good.all()):
        logger.warning("%d views tell no plausible focal length; the others' median is taken", int((~good).sum()))
    return centred_intrinsics(torch.where(good, focal, typical), height, width)


def _lowest_tenth(confidence: Tensor, valid: Tensor) -> Float[Tensor, "batch views"]:
    """The value below which a tenth of each view's valid confidences lie; -inf for an empty view."""
    levels = confidence.new_full(confidence.shape[:2], -torch.inf)
    for sample in range(confidence.shape[0]):
        for view in range(confidence.shape[1]):
            values = confidence[sample, view][valid[sample, view]]
            if len(values):
                levels[sample, view] = values.kthvalue(max(1, -(-len(values) // 10))).values
    return levels


def _pnp_poses(
    world: Tensor, intrinsics: Tensor, valid: Tensor, seed: int
) -> tuple[Float[Tensor, "batch views 4 4"], list[int]]:
    found = [
        [
            pose_from_pointmap(world[sample, view], intrinsics[sample, view], valid[sample, view], seed=seed)
            for view in range(world.shape[1])
        ]
        for sample in range(world.shape[0])
    ]
    poses = torch.stack([torch.stack([one.world_from_camera for one in sample]) for sample in found])
    return poses, [view for view, one in enumerate(found[0]) if not one.found]


def _local_scale(
    local: Tensor, seen: Tensor, valid: Bool[Tensor, "batch views height width"]
) -> Float[Tensor, "batch views"]:
    """World size of a unit of every local map: the median ratio of distances from the camera, 1 where none is known."""
    ratio = torch.linalg.vector_norm(seen, dim=-1) / torch.linalg.vector_norm(local, dim=-1)
    ratio = torch.where(valid & torch.isfinite(ratio) & (ratio > 0), ratio, torch.nan)
    return ratio.flatten(2).nanmedian(dim=-1).values.nan_to_num(nan=1.0)


def _residual(
    world: Tensor, moved: Tensor, local: Tensor, valid: Bool[Tensor, "batch views height width"]
) -> Float[Tensor, "batch views"]:
    """Median distance between the two maps, over the view's median distance from its camera; 0 for an empty view."""

    def median(values: Tensor) -> Tensor:
        return torch.where(valid, values, torch.nan).flatten(2).nanmedian(dim=-1).values.nan_to_num()

    size = median(torch.linalg.vector_norm(local, dim=-1))
    return median(torch.linalg.vector_norm(world - moved, dim=-1)) / size.clamp(min=1e-12)
