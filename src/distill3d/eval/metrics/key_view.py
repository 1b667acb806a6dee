"""Depth of a key view as the robust multi-view depth benchmark scores it (robustmvd; Schroeppel et al., 2022)."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

KeyAlignment = Literal["none", "median", "inverse"]
"""none; ratio of the medians over the mask; least squares of scale and shift in inverse depth."""
NEAR, FAR = 0.1, 100.0
"""Predictions are clipped to these, in metres, after the alignment."""


@dataclass(frozen=True, kw_only=True)
class KeyViewScores:
    """Percentages over the pixels with a known depth; NaN where there are none."""

    absrel: float
    """Mean of |p - g| / g."""
    inliers103: float
    """Share of pixels with max(p / g, g / p) below 1.03."""
    num_pixels: int


def resize_nearest(
    values: Float[np.ndarray, "height width"], size: tuple[int, int]
) -> Float[np.ndarray, "rows columns"]:
    """Bring a map to (height, width) by its nearest values, centre to centre.

    Halfway between two pixels the later one is taken, as far as rounding allows: in the order of operations of SciPy's
    `zoom`, which the benchmark's program uses.
    """
    rows, columns = (_nearest(length, wanted) for length, wanted in zip(values.shape, size, strict=True))
    resized: Float[np.ndarray, "rows columns"] = values[rows][:, columns]
    return resized


def _nearest(length: int, wanted: int) -> Int[np.ndarray, " wanted"]:
    place = (np.arange(wanted) + 0.5) * (length / wanted) - 0.5
    nearest: Int[np.ndarray, " wanted"] = np.floor(place + 0.5).astype(np.int64).clip(0, length - 1)
    return nearest


def align_key_view(
    predicted: Float[np.ndarray, "rows columns"],
    truth: Float[np.ndarray, "height width"],
    align: KeyAlignment = "none",
) -> Float[np.ndarray, "height width"]:
    """Bring a predicted depth map to the truth's size and scale and clip it; ready to be compared.

    What is not finite is 0, as the benchmark has it where a method says nothing; it takes no part in the alignment, and
    is clipped to the nearest depth. NaN everywhere where the alignment is not determined.
    """
    p = resize_nearest(predicted, (truth.shape[0], truth.shape[1])).astype(np.float64)
    said = np.isfinite(p)
    p = np.where(said, p, 0.0)
    use = said & _known(truth)
    g = truth.astype(np.float64)
    if align == "median" and use.any():
        middle = float(np.median(p[use]))
        p = p * (float(np.median(g[use])) / middle if middle != 0 else math.nan)
    if align == "inverse" and use.any():
        near = use & (p > 0)
        scale, shift = math.nan, math.nan
        if near.any():
            design = np.stack([1 / p[near], np.ones(int(near.sum()))], axis=1)
            scale, shift = np.linalg.lstsq(design, 1 / g[near], rcond=None)[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = scale / p + shift
            aligned = np.where(inverse <= 0, FAR, 1 / inverse)
        p = np.where(said & (p != 0), aligned, 0.0 if near.any() else math.nan)
    return np.clip(p, NEAR, FAR)


def key_view_scores(
    predicted: Float[np.ndarray, "rows columns"],
    truth: Float[np.ndarray, "height width"],
    align: KeyAlignment = "none",
) -> KeyViewScores:
    """Compare one depth map with a sparse or dense truth (0 where unknown), at the truth's size.

    Pixels about which the prediction says nothing (not finite, or 0) are outliers. NaN where it says nothing at all.
    """
    p = align_key_view(predicted, truth, align)
    use = _known(truth)
    if not use.any() or not np.isfinite(predicted).any():
        return KeyViewScores(absrel=math.nan, inliers103=math.nan, num_pixels=0)
    ours, true = p[use], truth[use].astype(np.float64)
    ratio = np.maximum(ours / true, true / ours)
    determined = bool(np.isfinite(ours).all())
    return KeyViewScores(
        absrel=float(100 * (np.abs(ours - true) / true).mean()),
        inliers103=float(100 * (ratio < 1.03).mean()) if determined else math.nan,
        num_pixels=int(use.sum()),
    )


def _known(g: Float[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    return np.asarray(np.isfinite(g) & (g > 0))
