"""Moving labels into the frame of another reference view: a change of frame, so nothing about the scene changes."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.errors import GeometryError
from distill3d.geometry.align import align_maps
from distill3d.geometry.poses import invert_pose
from distill3d.types import Prediction


def with_poses(prediction: Prediction, valid: Tensor) -> Prediction:
    """Add `world_from_camera` (in units of the world map) where a teacher gave only maps, from local map to world map.

    Returned as it is when the poses are there or cannot be known.
    """
    local, world = prediction.pointmap_camera, prediction.pointmap_world
    if prediction.world_from_camera is not None or local is None or world is None:
        return prediction
    confidence = prediction.confidence_world
    weight = torch.ones_like(local[..., 0]) if confidence is None else confidence
    try:
        similarity = align_maps(local, world, weight, valid)
    except GeometryError:
        return prediction
    poses = torch.eye(4).repeat(*local.shape[:2], 1, 1)
    poses[..., :3, :3], poses[..., :3, 3] = similarity.rotation.float(), similarity.translation.float()
    return replace(prediction, world_from_camera=poses)


def rebase(
    prediction: Prediction, poses: Float[Tensor, "batch views 4 4"], reference: Float[Tensor, "batch 4 4"]
) -> Prediction:
    """Express world map and poses in the frame of a camera of pose `reference`.

    Lengths keep their unit, and an identity reference changes nothing, bit for bit. `poses` are those of the views.
    """
    if torch.equal(reference, torch.eye(4, dtype=reference.dtype).expand_as(reference)):
        return replace(prediction, world_from_camera=poses)
    reference_from_world = invert_pose(reference)
    moved = reference_from_world[:, None] @ poses
    world = prediction.pointmap_world
    if world is not None:
        # Subtract before rotating: points far from the origin lose fewer bits. One coordinate after the other, as the
        # cache lays them out: as rows of three, the product takes twice as long.
        offset = (world - reference[:, None, None, None, :3, 3]).flatten(2, 3).transpose(-1, -2)
        rotated = reference[:, None, :3, :3].transpose(-1, -2) @ offset
        batch, views, height, width = world.shape[:4]
        world = rotated.view(batch, views, 3, height, width).permute(0, 1, 3, 4, 2)
    return replace(prediction, pointmap_world=world, world_from_camera=moved)
