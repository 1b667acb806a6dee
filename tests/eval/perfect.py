"""The truth as a method's answer: what a perfect network would say about a scene of a benchmark."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

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


def say_nothing_of_the_left_half(views: Views) -> Prediction:
    """The truth, with NaN in the left half of every map."""
    return _changed(views, lambda values: torch.where(_columns(values) < values.shape[3] // 2, torch.nan, values))


def say_a_number_everywhere(value: float) -> Callable[[Views], Prediction]:
    """A broken network: one number in every map; cameras are the truth's."""
    return lambda views: _changed(views, lambda values: torch.full_like(values, value))


def _changed(views: Views, change: Callable[[Tensor], Tensor]) -> Prediction:
    truth = say_the_truth(views)
    maps = ("depth", "pointmap_camera", "pointmap_world")
    return replace(truth, **{name: change(values) for name in maps if (values := getattr(truth, name)) is not None})


def _columns(values: Tensor) -> Tensor:
    """The column of every pixel, in the shape of a map."""
    column = torch.arange(values.shape[3])
    return (column if values.ndim == 4 else column[:, None]).expand_as(values)


PERFECT = Method(predict=say_the_truth, sees_truth=True)
BROKEN = {
    name: Method(predict=predict, sees_truth=True, settings={"says": name})
    for name, predict in (
        ("half", say_nothing_of_the_left_half),
        ("nan", say_a_number_everywhere(float("nan"))),
        ("zero", say_a_number_everywhere(0.0)),
        ("infinite", say_a_number_everywhere(float("inf"))),
    )
}
