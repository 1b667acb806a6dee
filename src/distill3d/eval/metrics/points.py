"""Point metrics: error at corresponding pixels after an alignment, and exact nearest distances between clouds."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from distill3d.eval.metrics.nearest import NearestPoints, nearest_points
from distill3d.geometry.align import Similarity, umeyama

PointAlignment = Literal["none", "scale", "similarity"]
"""none; one scale by least squares, origin and axes untouched; scale, rotation and translation by least squares."""


@dataclass(frozen=True, kw_only=True)
class PointScores:
    """Distances at corresponding pixels, in units of the truth."""

    mean: float
    median: float
    relative: float
    """The mean, as a share of the truth's mean distance from the origin (the first camera, for a world map)."""
    scale: float
    """That the prediction was multiplied by."""
    num_points: int


def align_points(
    predicted: Float[np.ndarray, "count 3"], truth: Float[np.ndarray, "count 3"], method: PointAlignment
) -> tuple[Float[np.ndarray, "count 3"], float]:
    """Bring corresponding points to the truth; gives them with the scale that was applied.

    Points that determine no rotation (a line, fewer than three) are scaled and shifted only.
    """
    p, g = predicted.astype(np.float64), truth.astype(np.float64)
    if method == "none":
        return p, 1.0
    if method == "scale":
        size = float((p * p).sum())
        scale = float((p * g).sum()) / size if size > 0 else math.nan
        return scale * p, scale
    fit = fit_similarity(p, g)
    return fit.apply(torch.from_numpy(p)).numpy(), float(fit.scale)


def fit_similarity(predicted: Float[np.ndarray, "count 3"], truth: Float[np.ndarray, "count 3"]) -> Similarity:
    """Fit the least-squares similarity in float64 (Umeyama)."""
    source, target = (torch.from_numpy(np.asarray(points, dtype=np.float64)) for points in (predicted, truth))
    return umeyama(source, target, degenerate="identity")


def point_scores(
    predicted: Float[np.ndarray, "*shape 3"],
    truth: Float[np.ndarray, "*shape 3"],
    valid: Bool[np.ndarray, "*shape"],
    *,
    align: PointAlignment = "similarity",
) -> PointScores:
    """Compare pointmaps pixel by pixel after one alignment of all valid points together; NaN for an empty mask."""
    p, g = predicted[valid].astype(np.float64), truth[valid].astype(np.float64)
    if len(g) == 0:
        return PointScores(mean=math.nan, median=math.nan, relative=math.nan, scale=math.nan, num_points=0)
    aligned, scale = align_points(p, g, align)
    distance = np.linalg.norm(aligned - g, axis=-1)
    size = float(np.linalg.norm(g, axis=-1).mean())
    mean = float(distance.mean())
    return PointScores(
        mean=mean,
        median=float(np.median(distance)),
        relative=mean / size if size > 0 else math.nan,
        scale=scale,
        num_points=len(g),
    )


@dataclass(frozen=True, kw_only=True)
class CloudScores:
    """Distances between two clouds, in their unit."""

    accuracy: float
    """Mean distance from a predicted point to the nearest true one."""
    accuracy_median: float
    completeness: float
    """Mean distance from a true point to the nearest predicted one."""
    completeness_median: float
    normal_consistency: float
    """Mean |cosine| between the normals of nearest points, averaged over both directions; NaN without normals."""
    normal_consistency_median: float


def cloud_scores(
    predicted: Float[np.ndarray, "count 3"],
    truth: Float[np.ndarray, "other 3"],
    predicted_normals: Float[np.ndarray, "count 3"] | None = None,
    truth_normals: Float[np.ndarray, "other 3"] | None = None,
    *,
    max_queries: int | None = None,
    device: torch.device | str = "cpu",
) -> CloudScores:
    """Measure accuracy and completeness, and how normals agree where both clouds have them; NaN if one is empty.

    With `max_queries` the means are over that many points of each cloud, evenly chosen; their neighbours are still
    looked for among all points, so the result estimates the same number (and is much quicker for clouds far apart).
    """
    if len(predicted) == 0 or len(truth) == 0:
        nan = math.nan
        return CloudScores(
            accuracy=nan, accuracy_median=nan, completeness=nan, completeness_median=nan,
            normal_consistency=nan, normal_consistency_median=nan,
        )  # fmt: skip
    asked, asked_truth = (_even_choice(len(cloud), max_queries) for cloud in (predicted, truth))
    first, second = (
        None if normals is None else normals[asked]
        for normals, asked in ((predicted_normals, asked), (truth_normals, asked_truth))
    )
    there = one_way_scores(predicted[asked], truth, first, truth_normals, device=device)
    back = one_way_scores(truth[asked_truth], predicted, second, predicted_normals, device=device)
    return CloudScores(
        accuracy=there.mean,
        accuracy_median=there.median,
        completeness=back.mean,
        completeness_median=back.median,
        normal_consistency=(there.normal_mean + back.normal_mean) / 2,
        normal_consistency_median=(there.normal_median + back.normal_median) / 2,
    )


class OneWay(NamedTuple):
    """Distances from one cloud to another, and |cosine| of the normals at both ends (NaN without normals)."""

    mean: float
    median: float
    normal_mean: float
    normal_median: float


def one_way_scores(
    queries: Float[np.ndarray, "count 3"],
    points: Float[np.ndarray, "other 3"],
    query_normals: Float[np.ndarray, "count 3"] | None = None,
    point_normals: Float[np.ndarray, "other 3"] | None = None,
    *,
    device: torch.device | str = "cpu",
) -> OneWay:
    """Look from every query to its nearest point; both clouds have at least one."""
    distance, nearest = nearest_points(queries, points, device=device)
    cosine = np.full(1, math.nan)
    if query_normals is not None and point_normals is not None:
        cosine = np.abs((query_normals * point_normals[nearest]).sum(axis=-1))
    return OneWay(float(distance.mean()), float(np.median(distance)), float(cosine.mean()), float(np.median(cosine)))


def completion_ratio(
    predicted: Float[np.ndarray, "count 3"], truth: Float[np.ndarray, "other 3"], threshold: float
) -> float:
    """Give the share of true points that have a predicted one nearer than `threshold`; NaN if a cloud is empty."""
    if len(predicted) == 0 or len(truth) == 0:
        return math.nan
    return float((nearest_points(truth, predicted)[0] < threshold).mean())


def _even_choice(count: int, limit: int | None) -> Int[np.ndarray, " chosen"]:
    chosen = count if limit is None else min(count, limit)
    return np.round(np.linspace(0, count - 1, chosen)).astype(np.int64)


def estimate_normals(points: Float[np.ndarray, "count 3"], neighbours: int = 30) -> Float[np.ndarray, "count 3"]:
    """Give the direction of least spread among each point's nearest ones (itself included); the sign is arbitrary."""
    points = points.astype(np.float64)
    if len(points) == 0:
        return np.zeros((0, 3))
    normals = np.empty_like(points)
    count = min(neighbours, len(points))
    for some, index in NearestPoints(points, most=count).neighbours(count):
        near = points[index] - points[index].mean(axis=1, keepdims=True)
        normals[some] = np.linalg.eigh(np.einsum("nki,nkj->nij", near, near))[1][:, :, 0]
    return normals


def refine_rigidly(
    predicted: Float[np.ndarray, "count 3"],
    truth: Float[np.ndarray, "other 3"],
    max_distance: float,
    iterations: int = 30,
) -> Float[np.ndarray, "4 4"]:
    """Run point-to-point ICP from the identity (rotation and translation only) and give `truth_from_predicted`.

    Pairs farther apart than `max_distance` do not count; it ends when share and rmse of the pairs change by less than
    1e-6.
    """
    cloud = NearestPoints(truth)
    total = np.eye(4)
    moved = predicted.astype(np.float64)
    share, rmse = -1.0, -1.0
    for step in range(iterations + 1):
        distance, index = cloud.query(moved, max_distance=max_distance)
        paired = np.isfinite(distance)
        if paired.sum() < 3:
            return total
        new_share, new_rmse = float(paired.mean()), float(np.sqrt((distance[paired] ** 2).mean()))
        if step == iterations or (step > 0 and abs(share - new_share) < 1e-6 and abs(rmse - new_rmse) < 1e-6):
            break
        share, rmse = new_share, new_rmse
        source, target = (torch.from_numpy(np.ascontiguousarray(c)) for c in (moved[paired], truth[index[paired]]))
        update = umeyama(source.double(), target.double(), with_scale=False, degenerate="identity").matrix().numpy()
        moved = moved @ update[:3, :3].T + update[:3, 3]
        total = update @ total
    return total
