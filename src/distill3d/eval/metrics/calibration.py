"""Does confidence rank error? Sparsification curves and the area between them (AUSE; Ilg et al., 2018)."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Mean error of what is left when the k percent of largest uncertainty (or error) are left out, k = 0 ... 99.

    Both curves are shares of the mean error of all pixels.
    """

    by_uncertainty: Float[np.ndarray, " steps"]
    by_error: Float[np.ndarray, " steps"]
    """The oracle: no order of pixels falls faster."""
    ause: float
    """Mean distance between the two; 0 for a confidence that ranks like the error itself."""
    ause_random: float
    """What a confidence without any knowledge gets: the mean distance between the oracle and 1."""


def sparsification_curve(
    error: Float[np.ndarray, " count"], order_by: Float[np.ndarray, " count"], steps: int = STEPS
) -> Float[np.ndarray, " steps"]:
    """Give the mean error of what is left, over that of all, after the share k / steps of largest `order_by` is gone.

    Whole pixels are dropped; where a fraction is not a whole number of them, the curve is a straight line between the
    steps as they were really taken (and level after the last). Ties keep their order. NaN for no pixels or no error.
    """
    count = len(error)
    if count == 0:
        return np.full(steps, math.nan)
    ordered = error[np.argsort(-order_by, kind="stable")].astype(np.float64)
    left = np.cumsum(ordered[::-1])[::-1] / np.arange(count, 0, -1)
    dropped = np.arange(steps) * count // steps
    curve = np.interp(np.arange(steps) * count / steps, dropped, left[dropped])
    return curve / curve[0] if curve[0] > 0 else np.full(steps, math.nan)


def calibration(error: Float[np.ndarray, " count"], uncertainty: Float[np.ndarray, " count"]) -> Calibration:
    """Compare the order that a model's uncertainty gives its pixels with the order of their errors.

    Args:
        error: at least 0, say |p - g| / g; pixels that are not finite in either array are left out.
        uncertainty: any number that grows where the model is less sure; for a confidence, its negative.
    """
    known = np.isfinite(error) & np.isfinite(uncertainty)
    error, uncertainty = error[known], uncertainty[known]
    ours, oracle = sparsification_curve(error, uncertainty), sparsification_curve(error, error)
    return Calibration(
        by_uncertainty=ours,
        by_error=oracle,
        ause=float((ours - oracle).mean()),
        ause_random=float((1 - oracle).mean()),
    )
