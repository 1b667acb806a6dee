"""What is scored against: the points and poses that depth, intrinsics and cameras of a group say."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from distill3d.geometry.cameras import unproject_depth
from distill3d.geometry.poses import rebase_poses, transform_points
from distill3d.types import Prediction, Views


@dataclass(frozen=True, kw_only=True)
class Truth:
    """One group in the camera frame of its first view, float64."""

    depth: Float[np.ndarray, "views height width"]
    world: Float[np.ndarray, "views height width 3"]
    valid: Bool[np.ndarray, "views height width"]
    world_from_camera: Float[np.ndarray, "views 4 4"]

    def share_missing(self, said: Bool[np.ndarray, "views height width"]) -> float:
        """The share of the known pixels about which a prediction says nothing."""
        return 1 - int((self.valid & said).sum()) / max(int(self.valid.sum()), 1)


def missing_truth(views: Views) -> list[str]:
    """Name what a group lacks to be scored."""
    needed = {"depth": views.depth, "intrinsics": views.intrinsics, "poses": views.world_from_camera}
    return [name for name, value in needed.items() if value is None]


def truth_of(views: Views) -> Truth:
    """Build the truth of one group (batch of 1) that lacks nothing."""
    assert views.depth is not None
    assert views.intrinsics is not None
    assert views.world_from_camera is not None
    valid = torch.isfinite(views.depth) & (views.depth > 0)
    if views.valid is not None:
        valid = valid & views.valid
    depth = torch.where(valid, views.depth, 0.0).double()
    pose = rebase_poses(views.world_from_camera.double(), 0)
    world = transform_points(pose, unproject_depth(depth, views.intrinsics.double()))
    return Truth(
        depth=depth[0].numpy(), world=world[0].numpy(), valid=valid[0].numpy(), world_from_camera=pose[0].numpy()
    )


def training_maps(views: Views) -> Prediction:
    """Give the exact local and world pointmaps of a group with truth, and its intrinsics: what baselines learn from."""
    assert views.depth is not None
    assert views.intrinsics is not None
    assert views.world_from_camera is not None
    local = unproject_depth(views.depth, views.intrinsics)
    world = transform_points(rebase_poses(views.world_from_camera, 0), local)
    return Prediction(pointmap_camera=local, pointmap_world=world, intrinsics=views.intrinsics)
