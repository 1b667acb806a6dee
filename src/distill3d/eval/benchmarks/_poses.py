"""Relative poses of pairs: what the pose benchmarks share."""

import math

import numpy as np
from jaxtyping import Float

from distill3d.eval.frames import finished
from distill3d.types import Prediction

Poses = Float[np.ndarray, "views 4 4"]


def predicted_poses(prediction: Prediction) -> Poses | None:
    """The model's own `world_from_camera`, else what its maps imply; None where that is nothing finite."""
    poses = finished(prediction).world_from_camera
    if poses is None:
        return None
    found: Poses = poses[0].double().cpu().numpy()
    return found if np.isfinite(found).all() else None


def failures(count: int) -> tuple[float, ...]:
    """Errors of pairs that a method failed on: infinite, so that they lower every area."""
    return (math.inf,) * count
