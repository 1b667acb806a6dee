"""Depth metrics and the alignments they are computed after (protocol of MonST3R, CUT3R and Pi3; views or videos).

Two of the alignments keep a quirk of the reference programs, for numbers that are to be compared with published ones:

- "scale" takes ten reweighted steps, in torch and in this order of operations. The weights reach 1e8, so where the fit
  has not converged another order of summation gives another result (2e-4 on the recorded case).
- "lad_adam" takes at most 1000 steps of 1e-4, hence moves by 0.1 at most and is usually not converged; "lad_bfgs" is
  SciPy's quasi-Newton search with a numerical gradient, which ends near the minimum; "lad" is the minimum itself.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from distill3d.eval.metrics.robust import fit_affine_many

DepthAlignment = Literal["none", "median", "scale", "affine", "lad", "lad_adam", "lad_bfgs"]
"""none; ratio of the (lower) medians; least absolute distances of a scale by reweighting; least squares of scale and
shift; least absolute distances of scale and shift: solved, as far as Adam comes, or as far as BFGS comes."""
ADAM_STEP = 1e-4
_ADAM_STEPS, _ADAM_CHANGE = 1000, 1e-6


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
    predicted: Float[np.ndarray, " count"],
    truth: Float[np.ndarray, " count"],
    method: DepthAlignment,
    *,
    adam_step: float = ADAM_STEP,
) -> tuple[float, float]:
    """Find scale and shift that take the predicted depths of corresponding pixels to the true ones; NaN for none."""
    p, g = predicted.astype(np.float64), truth.astype(np.float64)
    if method == "none":
        return 1.0, 0.0
    if len(p) == 0:
        return math.nan, math.nan
    if method == "median":
        return _median_ratio(p, g), 0.0
    if method == "affine":
        solution = np.linalg.lstsq(np.stack([p, np.ones_like(p)], axis=1), g, rcond=None)[0]
        return float(solution[0]), float(solution[1])
    source, target = torch.from_numpy(p), torch.from_numpy(g)
    if method == "scale":
        return _reweighted_scale(source, target), 0.0
    if method == "lad":
        fit = fit_affine_many(source, target)
        return fit.scale, fit.shift
    start = _median_ratio(p, g)
    if method == "lad_bfgs":
        from scipy.optimize import minimize  # slow to import

        found = minimize(lambda fit: np.abs(fit[0] * p + fit[1] - g).sum(), np.array([start, 0.0])).x
        return float(found[0]), float(found[1])
    return _adam_fit(source, target, start, adam_step)


def _median_ratio(p: Float[np.ndarray, " count"], g: Float[np.ndarray, " count"]) -> float:
    middle = lower_median(p)
    return lower_median(g) / middle if middle != 0 else math.nan


def _reweighted_scale(p: Float[torch.Tensor, " count"], g: Float[torch.Tensor, " count"]) -> float:
    """Ten reweighted least-squares fits of one scale; the order of the products is the reference's (see above)."""
    if float(p.mean()) == 0:
        return math.nan
    scale = g.mean() / p.mean()
    for _ in range(10):
        weight = 1 / ((scale * p - g).abs() + 1e-8)
        scale = ((weight * p * g).sum() / (weight * p**2).sum()).clamp(min=1e-3)
    return float(scale)


def _adam_fit(
    p: Float[torch.Tensor, " count"], g: Float[torch.Tensor, " count"], start: float, step: float
) -> tuple[float, float]:
    """Scale and shift after at most 1000 steps of Adam on the sum of absolute distances, from the ratio of medians."""
    scale = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([scale, shift], lr=step)
    last = math.inf
    with torch.enable_grad():
        for _ in range(_ADAM_STEPS):
            optimiser.zero_grad()
            loss = (scale * p + shift - g).abs().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if abs(last - loss.item()) < _ADAM_CHANGE:
                break
            last = loss.item()
    return float(scale.detach()), float(shift.detach())


def depth_scores(
    predicted: Float[np.ndarray, "*shape"],
    truth: Float[np.ndarray, "*shape"],
    valid: Bool[np.ndarray, "*shape"] | None = None,
    *,
    align: DepthAlignment = "median",
    max_depth: float | None = None,
    clip: float | None = None,
    adam_step: float = ADAM_STEP,
) -> DepthScores:
    """Compare depth maps after one alignment of all the pixels given; pass one view for a per-view alignment.

    Args:
        predicted: planar z-depth (or any consistent depth); only read where the mask and the truth allow.
        truth: 0, negative or not finite where unknown.
        valid: None takes every pixel with a known truth.
        align: see `DepthAlignment`.
        max_depth: pixels whose truth is at or beyond it do not count.
        clip: aligned predictions beyond it are set to it.
        adam_step: learning rate of "lad_adam".
    """
    use = np.isfinite(truth) & (truth > 0)
    if valid is not None:
        use &= valid
    if max_depth is not None:
        use &= truth < max_depth
    p, g = predicted[use].astype(np.float64), truth[use].astype(np.float64)
    if len(g) == 0:
        return EMPTY
    scale, shift = depth_alignment(p, g, align, adam_step=adam_step)
    with np.errstate(divide="ignore", invalid="ignore"):  # a prediction may be infinite, or 0
        p = scale * p + shift
        if clip is not None:
            p = np.minimum(p, clip)
        error = p - g
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
