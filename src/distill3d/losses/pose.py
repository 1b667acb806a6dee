"""Relative camera poses that the two pointmaps of a student imply, against the teacher's."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.geometry.align import align_maps
from distill3d.geometry.normalize import mean_distance
from distill3d.geometry.poses import rotation_angle
from distill3d.types import Prediction

PIXELS = 4096
"""A pose is fitted to about so many pixels of a view, evenly spread."""


def pose_terms(
    prediction: Prediction, target: Prediction, valid: Bool[Tensor, "batch views height width"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean error of rotation (radians) and translation (in sizes of the scene) over all pairs of views.

    A view's pose is the similarity that takes its camera map to the world map: weighted Procrustes, with the teacher's
    confidence as weight, differentiable in both maps. The teacher's poses are `target.world_from_camera`, or come from
    its own maps. Translations are compared in the frame of the pair's first camera, each in units of its own world's
    mean distance to the origin. Pairs with a view whose rotation cannot be told are left out; without pairs both are 0.

    Raises:
        ConfigError: a map that this needs is absent.
    """
    own_rotation, own_translation, known = _poses(prediction, target, valid, "student")
    with torch.no_grad():
        if target.world_from_camera is None:
            rotation, translation, told = _poses(target, target, valid, "teacher")
            known = known & told
        else:
            size = _size(target.pointmap_world, valid, "teacher")
            rotation = target.world_from_camera[..., :3, :3]
            translation = target.world_from_camera[..., :3, 3] / size[:, None, None]
    first, second = torch.triu_indices(known.shape[1], known.shape[1], offset=1, device=known.device)
    pairs = known[:, first] & known[:, second]
    # One of a pair may be anything where it is not known: select before any division or angle.
    pair_rotation = [(turn[:, first].transpose(-1, -2) @ turn[:, second])[pairs] for turn in (own_rotation, rotation)]
    pair_shift = [
        (turn[:, first].transpose(-1, -2) @ (shift[:, second] - shift[:, first])[..., None])[..., 0][pairs]
        for turn, shift in ((own_rotation, own_translation), (rotation, translation))
    ]
    count = max(int(pairs.sum()), 1)
    angle = rotation_angle(pair_rotation[0], pair_rotation[1]).sum() / count
    distance = torch.linalg.vector_norm(pair_shift[0] - pair_shift[1], dim=-1).sum() / count
    return angle, distance


def _poses(
    maps: Prediction, weights: Prediction, valid: Bool[Tensor, "batch views height width"], side: str
) -> tuple[Float[Tensor, "batch views 3 3"], Float[Tensor, "batch views 3"], Bool[Tensor, "batch views"]]:
    """Rotation, translation in sizes of the scene, and whether the rotation could be told."""
    if maps.pointmap_world is None or maps.pointmap_camera is None:
        raise ConfigError(f"The pose term needs world and camera pointmaps of the {side}. Set pose_weight to 0.")
    weight = weights.confidence_world
    # Six numbers need no more pixels than this, and float64 on all of them would cost more than the network.
    step = max(1, math.ceil(math.sqrt(valid.shape[2] * valid.shape[3] / PIXELS)))
    every = (slice(None), slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
    fit = align_maps(
        maps.pointmap_camera[every],
        maps.pointmap_world[every],
        None if weight is None else weight[every],
        valid[every],
        degenerate="identity",
    )
    assert fit.determined is not None
    size = _size(maps.pointmap_world, valid, side)
    return fit.rotation, fit.translation / size[:, None, None], fit.determined


def _size(
    world: Float[Tensor, "batch views height width 3"] | None,
    valid: Bool[Tensor, "batch views height width"],
    side: str,
) -> Float[Tensor, " batch"]:
    if world is None:
        raise ConfigError(f"The pose term needs the {side}'s world pointmap for its scale. Set pose_weight to 0.")
    size: Tensor = mean_distance(world, valid, "sample")
    return torch.where(size > 0, size, 1.0)
