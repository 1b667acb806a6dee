"""Sharpness of depth edges: boundary F1 (Depth Pro's measure with MoGe's radii and without its alignment)."""

import math

import numpy as np
from jaxtyping import Bool, Float

THRESHOLDS = np.linspace(0.05, 0.25, 10)
"""A neighbour is behind an edge where it is more than this share farther; the larger ones weigh more."""


def boundary_f1(
    predicted: Float[np.ndarray, "height width"],
    truth: Float[np.ndarray, "height width"],
    valid: Bool[np.ndarray, "height width"],
    radius: int = 1,
) -> float:
    """Compare where one pixel occludes a near one, in [0, 1]; only ratios of depths count, so no scale is needed.

    Every pixel at least `radius` from the border is compared with every other within `radius` pixels, where both are
    valid. At each of ten thresholds these pairs give an F1; the result is their mean, weighted by the threshold. A
    threshold at which neither map has an edge counts as 0; NaN where not one pair is valid.
    """
    height, width = truth.shape
    if height <= 2 * radius or width <= 2 * radius:
        return math.nan
    counts = np.zeros((3, len(THRESHOLDS)))  # edges of the prediction, of the truth, of both
    centre = (slice(radius, height - radius), slice(radius, width - radius))
    pairs = 0
    for row in range(-radius, radius + 1):
        for column in range(-radius, radius + 1):
            if not 0 < row * row + column * column <= radius * radius:
                continue
            other = (
                slice(radius + row, height - radius + row),
                slice(radius + column, width - radius + column),
            )
            use = valid[centre] & valid[other]
            pairs += int(use.sum())
            with np.errstate(divide="ignore", invalid="ignore"):  # a prediction of 0 is an edge, of 0 beside 0 none
                steps = [depth[other][use] / depth[centre][use] for depth in (predicted, truth)]
            for place, threshold in enumerate(THRESHOLDS):
                ours, true = (step > 1 + threshold for step in steps)
                counts[:, place] += ours.sum(), true.sum(), (ours & true).sum()
    if pairs == 0:
        return math.nan
    # F1 = 2 both / (predicted + true), which is the harmonic mean of precision and recall.
    scores = 2 * counts[2] / np.maximum(counts[0] + counts[1], 1)
    return float((THRESHOLDS * scores).sum() / THRESHOLDS.sum())
