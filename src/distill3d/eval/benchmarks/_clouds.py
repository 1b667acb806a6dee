"""Accuracy, completeness and normal consistency of joint pointmaps: what all multi-view point benchmarks share."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float

from distill3d.eval.metrics.points import cloud_scores, estimate_normals, fit_similarity, refine_rigidly
from distill3d.eval.scores import Column
from distill3d.geometry.cameras import unproject_depth
from distill3d.geometry.poses import transform_points
from distill3d.types import Views

COLUMNS: Mapping[str, Column] = {
    "accuracy": Column(label="accuracy", unit="mean", better="lower"),
    "accuracy_median": Column(label="accuracy", unit="median", better="lower"),
    "completeness": Column(label="completeness", unit="mean", better="lower"),
    "completeness_median": Column(label="completeness", unit="median", better="lower"),
    "normal_consistency": Column(label="normals", unit="mean", better="higher"),
    "normal_consistency_median": Column(label="normals", unit="median", better="higher"),
}
Points = Float[np.ndarray, "count 3"]
TruePoints = Float[np.ndarray, "other 3"]


def truth_points(
    views: Views, unit: float = 1.0
) -> tuple[Float[np.ndarray, "views height width 3"], Bool[np.ndarray, "views height width"]]:
    """True points in the world of the scene, in `1 / unit` metres, and where they are known (depth above 1e-4)."""
    assert views.depth is not None
    assert views.intrinsics is not None
    assert views.world_from_camera is not None
    valid = torch.isfinite(views.depth[0]) & (views.depth[0] > 1e-4)
    depth = torch.where(valid, views.depth[0], 0.0).double() * unit
    pose = views.world_from_camera[0].double()
    pose[:, :3, 3] *= unit
    world = transform_points(pose, unproject_depth(depth, views.intrinsics[0].double()))
    return world.numpy(), valid.numpy()


def align_by_similarity(predicted: Points, truth: Points) -> Points:
    """Bring corresponding points to the truth by Umeyama's similarity."""
    aligned: Points = fit_similarity(predicted, truth).apply(torch.from_numpy(predicted)).numpy()
    return aligned


def refine(predicted: Points, truth: TruePoints, max_distance: float) -> Points:
    """Move points by ICP, rigidly."""
    motion = refine_rigidly(predicted, truth, max_distance)
    moved: Points = predicted @ motion[:3, :3].T + motion[:3, 3]
    return moved


def compare(predicted: Points, truth: TruePoints) -> dict[str, float]:
    """Score aligned clouds; no down-sampling, no outlier is cut."""
    scores = cloud_scores(predicted, truth, estimate_normals(predicted), estimate_normals(truth))
    return {name: float(getattr(scores, name)) for name in COLUMNS}


def nothing() -> dict[str, float]:
    """What a method gets that says nothing about a sample."""
    return dict.fromkeys(COLUMNS, float("nan"))
