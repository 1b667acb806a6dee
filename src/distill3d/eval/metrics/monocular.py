"""Depth and points of one photo as MoGe scores them: what is not known (scale, shift) is fitted first, robustly.

A prediction of a stronger kind also competes in the weaker disciplines: metric depth in the scale-invariant one, and so
on down to disparity. The fits look at 64 x 64 pixels (`sample`), the scores at every valid one.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from distill3d.eval.metrics.boundary import boundary_f1
from distill3d.eval.metrics.robust import (
    fit_affine,
    fit_affine_least_squares,
    fit_points_scale,
    fit_points_scale_shift,
    fit_points_shift,
    fit_scale,
)
from distill3d.eval.metrics.sample import nearest_valid_pixels

DepthMap = Float[np.ndarray, "height width"]
PointMap = Float[np.ndarray, "height width 3"]
RADII = (1, 2, 3)
_FEW_PIXELS = 10
"""Segments with fewer pixels in the small set are passed over."""


@dataclass(frozen=True, kw_only=True)
class MonocularPrediction:
    """What a network says about one photo, at the size of the truth; whatever it does not claim is None."""

    depth_metric: DepthMap | None = None
    depth_scale_invariant: DepthMap | None = None
    depth_affine_invariant: DepthMap | None = None
    disparity_affine_invariant: DepthMap | None = None
    points_metric: PointMap | None = None
    points_scale_invariant: PointMap | None = None
    points_affine_invariant: PointMap | None = None
    focal_x: float | None = None
    """Horizontal focal length over the width of the photo."""


@dataclass(frozen=True, kw_only=True)
class MonocularTruth:
    """What is known about one photo."""

    depth: DepthMap
    points: PointMap
    valid: Bool[np.ndarray, "height width"]
    focal_x: float
    """Over the width of the photo."""
    is_metric: bool = False
    sharp_boundary: bool = False
    """The depth is good enough at its edges for boundary F1."""
    segments: tuple[Bool[np.ndarray, "height width"], ...] = ()
    """Objects whose shape is scored alone."""


@np.errstate(invalid="ignore")  # a prediction may be infinite
def monocular_scores(
    prediction: MonocularPrediction, truth: MonocularTruth, *, signed_ratio: bool = False
) -> dict[str, float]:
    """Give every metric that the prediction and the truth allow, by its name in the protocol; NaN for an empty mask.

    Args:
        prediction: what is scored.
        truth: what it is compared with.
        signed_ratio: take max(p / g, g / p) < 1.25 by the letter: a depth that a fit has made negative then counts as
            near. Else it is far.
    """
    scores: dict[str, float] = {}
    valid = truth.valid & np.isfinite(truth.depth)
    pixels = _Pixels.of(truth, valid)
    edges: DepthMap | None = None
    for name, depth in _aligned_depths(prediction, truth, pixels):
        if name == "depth_metric":
            edges = depth
            if not truth.is_metric:
                continue
        if edges is None and name != "disparity_affine_invariant":
            edges = depth
        scores |= _depth_scores(name, depth[valid], truth.depth[valid], signed_ratio)
    for name, points in _aligned_points(prediction, truth, pixels):
        scores |= _point_scores(name, points[valid], truth.points[valid])
    first = _first(prediction.points_metric, prediction.points_scale_invariant, prediction.points_affine_invariant)
    if first is not None and truth.segments:
        scores |= _local_scores(first, truth, valid, pixels)
    if prediction.focal_x is not None:
        deviation = _opening(prediction.focal_x) - _opening(truth.focal_x)
        scores |= {"fov_x.mae": abs(deviation), "fov_x.deviation": deviation}
    if truth.sharp_boundary:
        edges = edges if edges is not None else _disparity_edges(prediction, truth, valid)
        if edges is not None:
            for radius in RADII:
                scores[f"boundary.radius{radius}_f1"] = boundary_f1(edges, truth.depth, valid, radius)
    return scores


def _opening(focal_x: float) -> float:
    """Horizontal opening in degrees; NaN for what is no focal length."""
    return math.degrees(2 * math.atan(0.5 / focal_x)) if focal_x > 0 else math.nan


@dataclass(frozen=True)
class _Pixels:
    """The small set: its rows, its columns and the weights of the fits."""

    rows: Int[np.ndarray, " count"]
    columns: Int[np.ndarray, " count"]
    weight_depth: Float[np.ndarray, " count"]
    weight_points: Float[np.ndarray, " count"]

    @classmethod
    def of(cls, truth: MonocularTruth, valid: Bool[np.ndarray, "height width"]) -> "_Pixels":
        found, rows, columns = nearest_valid_pixels(valid)
        rows, columns = rows[found], columns[found]
        depth = truth.depth[rows, columns].astype(np.float64)
        size = np.linalg.norm(truth.points[rows, columns].astype(np.float64), axis=-1)
        return cls(rows, columns, 1 / depth, 1 / size)

    def pick(self, values: Float[np.ndarray, "height width *channels"]) -> torch.Tensor:
        """Values at the pixels of the set."""
        return torch.from_numpy(values[self.rows, self.columns].astype(np.float64))


def _aligned_depths(
    prediction: MonocularPrediction, truth: MonocularTruth, pixels: _Pixels
) -> list[tuple[str, DepthMap]]:
    """Depth maps that are ready to be compared, by metric."""
    found: list[tuple[str, DepthMap]] = []
    target, weight = pixels.pick(truth.depth), torch.from_numpy(pixels.weight_depth)
    if prediction.depth_metric is not None:
        found.append(("depth_metric", prediction.depth_metric.astype(np.float64)))
    scaled = _first(prediction.depth_scale_invariant, prediction.depth_metric)
    if scaled is not None:
        scale = fit_scale(pixels.pick(scaled), target, weight).scale
        found.append(("depth_scale_invariant", scale * scaled.astype(np.float64)))
    affine = _first(prediction.depth_affine_invariant, scaled)
    if affine is not None:
        fit = fit_affine(pixels.pick(affine), target, weight)
        found.append(("depth_affine_invariant", fit.scale * affine.astype(np.float64) + fit.shift))
    disparity = _aligned_disparity(prediction, truth, truth.valid & np.isfinite(truth.depth))
    if disparity is not None:
        nearest = truth.depth[truth.valid & np.isfinite(truth.depth)].astype(np.float64)
        floor = 1 / nearest.max() if len(nearest) else math.nan
        found.append(("disparity_affine_invariant", 1 / np.maximum(disparity, floor)))
    return found


def _aligned_disparity(
    prediction: MonocularPrediction, truth: MonocularTruth, valid: Bool[np.ndarray, "height width"]
) -> DepthMap | None:
    disparity = prediction.disparity_affine_invariant
    if disparity is None:
        depth = _first(prediction.depth_scale_invariant, prediction.depth_metric)
        if depth is None:
            return None
        with np.errstate(divide="ignore"):
            disparity = 1 / depth.astype(np.float64)
    source, target = disparity[valid].astype(np.float64), 1 / truth.depth[valid].astype(np.float64)
    fit = fit_affine_least_squares(torch.from_numpy(source), torch.from_numpy(target))
    return fit.scale * disparity.astype(np.float64) + fit.shift


def _disparity_edges(
    prediction: MonocularPrediction, truth: MonocularTruth, valid: Bool[np.ndarray, "height width"]
) -> DepthMap | None:
    disparity = _aligned_disparity(prediction, truth, valid)
    return None if disparity is None else 1 / np.maximum(disparity, 1e-6)


def _aligned_points(
    prediction: MonocularPrediction, truth: MonocularTruth, pixels: _Pixels
) -> list[tuple[str, PointMap]]:
    found: list[tuple[str, PointMap]] = []
    target, weight = pixels.pick(truth.points), torch.from_numpy(pixels.weight_points)
    if prediction.points_metric is not None and truth.is_metric:
        moved = fit_points_shift(pixels.pick(prediction.points_metric), target, weight)
        found.append(("points_metric", moved.apply(torch.from_numpy(prediction.points_metric)).numpy()))
    scaled = _first(prediction.points_scale_invariant, prediction.points_metric)
    if scaled is not None:
        scale = fit_points_scale(pixels.pick(scaled), target, weight).scale
        found.append(("points_scale_invariant", scale * scaled.astype(np.float64)))
    affine = _first(prediction.points_affine_invariant, scaled)
    if affine is not None:
        fit = fit_points_scale_shift(pixels.pick(affine), target, weight)
        found.append(("points_affine_invariant", fit.apply(torch.from_numpy(affine)).numpy()))
    return found


def _local_scores(
    points: PointMap, truth: MonocularTruth, valid: Bool[np.ndarray, "height width"], pixels: _Pixels
) -> dict[str, float]:
    """Score every segment after a fit of its own, as a share of its size; the mean over segments.

    The fit looks at those pixels of the small set that lie in the segment.
    """
    relative, near = [], []
    for segment in truth.segments:
        chosen = segment[pixels.rows, pixels.columns]
        if chosen.sum() < _FEW_PIXELS:
            continue
        inside = segment & valid
        target = truth.points[inside].astype(np.float64)
        size = float((target.max(axis=0) - target.min(axis=0)).max())
        source, wanted = (pixels.pick(values)[torch.from_numpy(chosen)] for values in (points, truth.points))
        fit = fit_points_scale_shift(source, wanted, torch.ones(len(source), dtype=torch.float64))
        error = np.linalg.norm(fit.apply(torch.from_numpy(points[inside])).numpy() - target, axis=-1)
        relative.append(float((error / size).mean()))
        near.append(float((error < 0.25 * size).mean()))
    if not relative:
        return {"local_points.rel": math.nan, "local_points.delta1": math.nan}
    return {"local_points.rel": float(np.mean(relative)), "local_points.delta1": float(np.mean(near))}


def _depth_scores(
    name: str, p: Float[np.ndarray, " count"], g: Float[np.ndarray, " count"], signed_ratio: bool
) -> dict[str, float]:
    if len(g) == 0 or not np.isfinite(p).all():
        return {f"{name}.rel": math.nan, f"{name}.delta1": math.nan}
    g = g.astype(np.float64)
    with np.errstate(divide="ignore"):
        ratio = np.maximum(p / g, g / p)
    if not signed_ratio:
        ratio = np.where(p > 0, ratio, np.inf)
    return {f"{name}.rel": float((np.abs(p - g) / (g + 1e-6)).mean()), f"{name}.delta1": float((ratio < 1.25).mean())}


def _point_scores(name: str, p: Float[np.ndarray, "count 3"], g: Float[np.ndarray, "count 3"]) -> dict[str, float]:
    if len(g) == 0 or not np.isfinite(p).all():
        return {f"{name}.rel": math.nan, f"{name}.delta1": math.nan}
    g = g.astype(np.float64)
    error, ours, true = (np.linalg.norm(values, axis=-1) for values in (p - g, p, g))
    return {
        f"{name}.rel": float((error / (true + 1e-6)).mean()),
        f"{name}.delta1": float((error < 0.25 * np.minimum(ours, true)).mean()),
    }


def _first(*maps: np.ndarray | None) -> np.ndarray | None:
    return next((values for values in maps if values is not None), None)
