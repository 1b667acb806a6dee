"""Few pixels that stand for a whole map: the nearest valid one of every cell of a grid (MoGe's low-resolution set)."""

import math

import numpy as np
from jaxtyping import Bool, Int

SIDE = 64
"""Rows and columns of the set that the alignments of the MoGe protocol look at."""


def nearest_valid_pixels(
    valid: Bool[np.ndarray, "height width"], size: tuple[int, int] = (SIDE, SIDE)
) -> tuple[Bool[np.ndarray, "rows columns"], Int[np.ndarray, "rows columns"], Int[np.ndarray, "rows columns"]]:
    """Shrink a mask and say which pixel every cell takes: the valid one nearest to its centre, within its footprint.

    Gives whether a cell has a valid pixel, and its row and column there (0 elsewhere). Of equally near pixels the first
    in reading order is taken. Places are computed in float32 and rounded half to even, as the reference does, which
    decides ties.
    """
    shape, one = valid.shape, np.float32(1)
    centres, firsts, counts = [], [], []
    for length, cells in zip(shape, size, strict=True):
        centre = (np.arange(cells, dtype=np.float32) + np.float32(0.5)) / np.float32(cells) * np.float32(length)
        footprint = max(one, np.float32(length / cells))
        centres.append(centre)
        firsts.append(np.round(centre - footprint / 2).astype(np.int64))
        counts.append(math.ceil(footprint))
    best = np.full(size, np.inf, dtype=np.float32)
    chosen = np.zeros((2, *size), dtype=np.int64)
    for down in range(counts[0]):
        row = firsts[0] + down
        for right in range(counts[1]):
            column = firsts[1] + right
            inside = ((row >= 0) & (row < shape[0]))[:, None] & ((column >= 0) & (column < shape[1]))
            there = valid[np.clip(row, 0, shape[0] - 1)[:, None], np.clip(column, 0, shape[1] - 1)]
            far_y = (row.astype(np.float32) + np.float32(0.5) - centres[0]) ** 2
            far_x = (column.astype(np.float32) + np.float32(0.5) - centres[1]) ** 2
            distance = far_y[:, None] + far_x
            better = inside & there & (distance < best)
            best[better] = distance[better]
            chosen[0][better] = np.broadcast_to(row[:, None], size)[better]
            chosen[1][better] = np.broadcast_to(column, size)[better]
    return np.isfinite(best), chosen[0], chosen[1]
