"""Accuracy and completeness against a scan that saw only a part of space, as DTU's own evaluation does.

A prediction must not be blamed for what the scanner could not see: predicted points count inside the observed space
alone, true points above the plane of the table alone, and distances beyond a limit do not count at all. Predicted
points are thinned out first, so that a place which many views see does not count many times (Aanaes et al., 2016).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from distill3d.eval.metrics.nearest import nearest_points

Points = Float[np.ndarray, "points 3"]
SPACING_MM, LIMIT_MM = 0.2, 20.0
_FIRST, _AT_ONCE = 2**12, 2**20


@dataclass(frozen=True, kw_only=True)
class ObservedScan:
    """A reference cloud and where it can be trusted; one unit throughout."""

    points: Points
    observed: Bool[np.ndarray, "x y z"]
    """Cells of space that the scanner saw."""
    low: Float[np.ndarray, "3"]
    """Centre of the first cell."""
    cell: float
    """Their size."""
    plane: Float[np.ndarray, "4"]
    """`plane @ (x, y, z, 1)` is above 0 over the table."""


@dataclass(frozen=True, kw_only=True)
class ObservedScores:
    """Distances in the scan's unit; NaN where not one point counts."""

    accuracy: float
    """Mean distance from predicted points to the scan."""
    accuracy_median: float
    completeness: float
    """Mean distance from the scan to the prediction."""
    completeness_median: float
    overall: float
    """Mean of the two means."""
    num_predicted: int
    """Predicted points that are left after thinning and lie in the observed space."""


def observed_scores(
    predicted: Points,
    scan: ObservedScan,
    *,
    spacing: float = SPACING_MM,
    limit: float = LIMIT_MM,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ObservedScores:
    """Compare an aligned prediction with a scan.

    Args:
        predicted: in the frame and unit of the scan; points that are not finite are left out.
        scan: the reference.
        spacing: no two predicted points are nearer than this.
        limit: distances from here on are left out of means and medians, on both sides.
        seed: of the order in which points are thinned out.
        device: for the nearest neighbours.
    """
    known = predicted[np.isfinite(predicted).all(axis=-1)].astype(np.float64)
    thinned = known[thin_out(known, spacing, seed=seed)]
    seen = thinned[is_observed(thinned, scan)]
    above = scan.points[scan.points @ scan.plane[:3] + scan.plane[3] > 0]
    accuracy, accuracy_median = _below(seen, scan.points, limit, device)
    completeness, completeness_median = _below(above, thinned, limit, device)
    return ObservedScores(
        accuracy=accuracy,
        accuracy_median=accuracy_median,
        completeness=completeness,
        completeness_median=completeness_median,
        overall=(accuracy + completeness) / 2,
        num_predicted=len(seen),
    )


def is_observed(points: Points, scan: ObservedScan) -> Bool[np.ndarray, " points"]:
    """Whether the nearest cell of every point was seen; outside of all cells it was not."""
    cells = np.round((points - scan.low) / scan.cell)
    inside = ((cells >= 0) & (cells < scan.observed.shape)).all(axis=-1)
    x, y, z = np.where(inside[:, None], cells, 0).astype(np.int64).T
    return np.asarray(inside & scan.observed[x, y, z])


def thin_out(points: Points, spacing: float, *, seed: int = 0) -> Int[np.ndarray, " kept"]:
    """Choose points no two of which are nearer than `spacing`: in random order, each that no chosen one is near to.

    Gives indices in ascending order; every point that is left out has a chosen one within `spacing`.
    """
    order = np.random.default_rng(seed).permutation(len(points))
    kept: Int[np.ndarray, " kept"] = np.zeros(0, dtype=np.int64)
    done = 0
    while done < len(order):
        # Few at first: where points are crowded, these already rule out nearly all others.
        some = order[done : done + min(_AT_ONCE, max(_FIRST, done))]
        done += len(some)
        if len(kept):
            distance, _ = nearest_points(points[some], points[kept], max_distance=spacing)
            some = some[np.isinf(distance)]
        kept = np.concatenate([kept, some[_first_come(points[some], spacing)]])
    return np.sort(kept)


def _first_come(points: Points, spacing: float) -> Bool[np.ndarray, " points"]:
    """Go through points in their order and keep those that no kept one is near to.

    In rounds: whoever has no undecided neighbour before it is kept, and its neighbours are not. This is the same choice
    as one by one.
    """
    from scipy.spatial import KDTree  # slow to import

    kept = np.zeros(len(points), dtype=bool)
    undecided = ~kept
    pairs = KDTree(points).query_pairs(spacing, output_type="ndarray") if len(points) else np.zeros((0, 2), np.int64)
    while len(pairs):
        behind = np.zeros(len(points), dtype=bool)
        behind[pairs[:, 1]] = True  # pairs are (earlier, later)
        new = undecided & ~behind
        kept |= new
        undecided &= ~new
        undecided[pairs[new[pairs[:, 0]], 1]] = False
        pairs = pairs[undecided[pairs].all(axis=1)]
    return kept | undecided


def _below(
    queries: Float[np.ndarray, "queries 3"], points: Points, limit: float, device: torch.device | str
) -> tuple[float, float]:
    """Mean and median of the distances below the limit."""
    if len(queries) == 0 or len(points) == 0:
        return math.nan, math.nan
    distance, _ = nearest_points(queries, points, max_distance=limit, device=device)
    near = distance[np.isfinite(distance)]
    return (float(near.mean()), float(np.median(near))) if len(near) else (math.nan, math.nan)
