"""Depth metrics and the alignments they are computed after (protocol of MonST3R, CUT3R and Pi3; views or videos)."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

DepthAlignment = Literal["none", "median", "scale", "affine"]
"""none; ratio of the (lower) medians; least absolute distances by reweighting; least squares of scale and shift."""


@dataclass(frozen=True, kw_only=True)
class DepthScores:
    """Errors of one depth map or stack of maps, over the pixels that count."""

    abs_rel: float
    """Mean of |p - g| / g."""
    sq_rel: float
    """Mean of (p - g)^2 / g, in units of depth."""
    rmse: float
    """In units of depth."""
    log_rmse: float
    """Of the natural logarithms; predictions below 1e-5 count as 1e-5."""
    delta1: float
    """Share of pixels with max(p / g, g / p) below 1.25; predictions that are not positive are not among them."""
    delta2: float
    """The same below 1.25^2."""
    delta3: float
    """The same below 1.25^3."""
    num_pixels: int


EMPTY = DepthScores(
    abs_rel=math.nan, sq_rel=math.nan, rmse=math.nan, log_rmse=math.nan,
    delta1=math.nan, delta2=math.nan, delta3=math.nan, num_pixels=0,
)  # fmt: skip


def lower_median(values: Float[np.ndarray, " count"]) -> float:
    """Give the middle value, the lower of two (as torch does); NaN for none."""
    return float(np.partition(values, (len(values) - 1) // 2)[(len(values) - 1) // 2]) if len(values) else math.nan


def depth_alignment(
    predicted: Float[np.ndarray, " count"], truth: Float[np.ndarray, " count"], method: DepthAlignment
) -> tuple[float, float]:
    """Find scale and shift that take the predicted depths of corresponding pixels to the true ones; NaN for none."""
    p, g = predicted.astype(np.float64), truth.astype(np.float64)
    if method == "none":
        return 1.0, 0.0
    if len(p) == 0:
        return math.nan, math.nan
    if method == "median":
        middle = lower_median(p)
        return (lower_median(g) / middle if middle != 0 else math.nan), 0.0
    if method == "affine":
        solution = np.linalg.lstsq(np.stack([p, np.ones_like(p)], axis=1), g, rcond=None)[0]
        return float(solution[0]), float(solution[1])
    if p.mean() == 0:
        return math.nan, 0.0
    scale = g.mean() / p.mean()
    for _ in range(10):
        weight = 1 / (np.abs(scale * p - g) + 1e-8)
        scale = max(float((weight * p * g).sum() / (weight * p * p).sum()), 1e-3)
    return float(scale), 0.0


def depth_scores(
    predicted: Float[np.ndarray, "*shape"],
    truth: Float[np.ndarray, "*shape"],
    valid: Bool[np.ndarray, "*shape"] | None = None,
    *,
    align: DepthAlignment = "median",
    max_depth: float | None = None,
    clip: float | None = None,
) -> DepthScores:
    """Compare depth maps after one alignment of all the pixels given; pass one view for a per-view alignment.

    Args:
        predicted: planar z-depth (or any consistent depth); only read where the mask and the truth allow.
        truth: 0, negative or not finite where unknown.
        valid: None takes every pixel with a known truth.
        align: see `DepthAlignment`.
        max_depth: pixels whose truth is at or beyond it do not count.
        clip: aligned predictions beyond it are set to it.
    """
    use = np.isfinite(truth) & (truth > 0)
    if valid is not None:
        use &= valid
    if max_depth is not None:
        use &= truth < max_depth
    p, g = predicted[use].astype(np.float64), truth[use].astype(np.float64)
    if len(g) == 0:
        return EMPTY
    scale, shift = depth_alignment(p, g, align)
    p = scale * p + shift
    if clip is not None:
        p = np.minimum(p, clip)
    error = p - g
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(p > 0, np.maximum(p / g, g / p), np.inf)
    finite = bool(np.isfinite(p).all())  # a NaN must not pass for an ordinary outlier
    deltas = [float((ratio < 1.25**power).mean()) if finite else math.nan for power in (1, 2, 3)]
    return DepthScores(
        abs_rel=float((np.abs(error) / g).mean()),
        sq_rel=float((error**2 / g).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        log_rmse=float(np.sqrt(((np.log(np.maximum(p, 1e-5)) - np.log(g)) ** 2).mean())),
        delta1=deltas[0],
        delta2=deltas[1],
        delta3=deltas[2],
        num_pixels=len(g),
    )
