"""How the multi-view benchmarks bring predicted points to the truth; protocols differ here more than anywhere else."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from distill3d.eval.metrics.depth import lower_median
from distill3d.geometry.align import Similarity, umeyama

Maps = Float[np.ndarray, "views height width 3"]
Mask = Bool[np.ndarray, "views height width"]


class MedianAligned(NamedTuple):
    """Truth and prediction without their median depth, the prediction at the truth's size, and what was found."""

    truth: Maps
    predicted: Maps
    truth_shift_z: float
    predicted_shift_z: float
    truth_scale: float
    predicted_scale: float


def align_by_medians(predicted: Maps, truth: Maps, valid: Mask) -> MedianAligned:
    """Match depth and size by medians, with no rotation (CUT3R, Spann3R).

    The joint median z of the valid points is taken from both maps; a map's size is the (lower) median distance of its
    points from their median centre; the prediction is multiplied by the ratio of the sizes (NaN if its own size is 0).

    Args:
        predicted: in the frame of the first camera.
        truth: in the frame of the first camera.
        valid: pixels that count.
    """
    maps = [values.astype(np.float64) for values in (predicted, truth)]
    shifts, scales = [], []
    for place, values in enumerate(maps):
        shift = lower_median(values[valid][:, 2])
        moved = values - np.array([0, 0, shift])
        used = moved[valid]
        centre = np.array([lower_median(used[:, axis]) for axis in range(3)])
        shifts.append(shift)
        scales.append(lower_median(np.linalg.norm(used - centre, axis=-1)))
        maps[place] = moved
    factor = scales[1] / scales[0] if scales[0] != 0 else math.nan
    return MedianAligned(maps[1], maps[0] * factor, shifts[1], shifts[0], scales[1], scales[0])


def confident_similarity(
    source: Float[np.ndarray, "count 3"],
    target: Float[np.ndarray, "count 3"],
    confidence: Float[np.ndarray, " count"],
    percentile: float = 85.0,
) -> Similarity:
    """Fit the similarity over points whose confidence reaches a percentile (Fast3R); over all if these are too few."""
    sure = confidence >= np.percentile(confidence, percentile) if len(confidence) else np.zeros(0, dtype=bool)
    if sure.sum() < 3:
        sure = np.ones(len(confidence), dtype=bool)
    return weighted_similarity(source, target, sure.astype(np.float64))


def weighted_similarity(
    source: Float[np.ndarray, "count 3"], target: Float[np.ndarray, "count 3"], weights: Float[np.ndarray, " count"]
) -> Similarity:
    """Fit the similarity with weighted means, covariance and variance, in float64."""
    x, y, w = (torch.from_numpy(values.astype(np.float64)) for values in (source, target, weights))
    return umeyama(x, y, w, degenerate="identity")
