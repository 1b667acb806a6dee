"""The truth as a method's answer: what a perfect network would say about a scene of a benchmark."""

from typing import Any

from distill3d.eval.run import Method
from distill3d.geometry.cameras import unproject_depth
from distill3d.geometry.poses import rebase_poses, transform_points
from distill3d.types import Prediction, Views


def say_the_truth(views: Views) -> Prediction:
    """Everything that is known, in the camera frame of view 0."""
    found: dict[str, Any] = {"intrinsics": views.intrinsics, "depth": views.depth}
    if views.depth is not None and views.intrinsics is not None:
        found["pointmap_camera"] = unproject_depth(views.depth, views.intrinsics)
    if views.world_from_camera is not None:
        poses = rebase_poses(views.world_from_camera.double(), 0)
        found["world_from_camera"] = poses.float()
        if "pointmap_camera" in found:
            found["pointmap_world"] = transform_points(poses, found["pointmap_camera"].double()).float()
    return Prediction(**found)


PERFECT = Method(predict=say_the_truth, sees_truth=True)
