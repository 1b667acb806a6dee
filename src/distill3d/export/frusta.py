"""Cameras drawn as small pyramids."""

import numpy as np
from jaxtyping import Float, UInt8

EDGES = np.array([(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1), (5, 6), (6, 7), (7, 5)])
"""Apex 0, corners 1-4 (clockwise from the top left), and a small triangle 5-7 on the upper side."""


def frustum_points(
    intrinsics: Float[np.ndarray, "3 3"],
    world_from_camera: Float[np.ndarray, "4 4"],
    size: tuple[int, int],
    depth: float,
) -> Float[np.ndarray, "8 3"]:
    """Place the eight points of a pyramid, in the world; its base is the image of `size` (height, width) at `depth`."""
    height, width = size
    # Integer pixel centres: the image reaches half a pixel beyond the first and last centre.
    left, right, top, bottom = -0.5, width - 0.5, -0.5, height - 0.5
    roof = top - 0.18 * height
    pixels = np.array(
        [
            (left, top),
            (right, top),
            (right, bottom),
            (left, bottom),
            (left + 0.38 * width, top - 0.03 * height),
            (left + 0.62 * width, top - 0.03 * height),
            (left + 0.5 * width, roof),
        ]
    )
    rays = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(intrinsics).T
    points = np.r_[np.zeros((1, 3)), rays / rays[:, 2:] * depth]
    return np.asarray(points @ world_from_camera[:3, :3].T + world_from_camera[:3, 3], dtype=np.float64)


def frustum_depth(points: Float[np.ndarray, "points 3"], centers: Float[np.ndarray, "views 3"]) -> float:
    """Choose a size for the pyramids that suits the scene: a share of its extent, less when cameras stand close."""
    spread = np.percentile(points, 90, axis=0) - np.percentile(points, 10, axis=0)
    depth = 0.045 * float(np.linalg.norm(spread))
    if len(centers) > 1:
        gaps = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
        np.fill_diagonal(gaps, np.inf)
        depth = min(depth, max(1.5 * float(np.median(gaps.min(axis=1))), 0.25 * depth))
    return depth if depth > 0 else 0.1


def view_colors(num_views: int) -> UInt8[np.ndarray, "views 3"]:
    """Give every view its own well-separated sRGB colour, the same in all exports and in the report."""
    hues = (0.58 + 0.61803398875 * np.arange(num_views)) % 1.0
    # HSV to RGB at saturation 0.65 and value 0.95.
    phase = np.abs((hues[:, None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    rgb = 0.95 * (1 - 0.65 * (1 - np.clip(phase, 0, 1)))
    return np.asarray((rgb * 255).round(), dtype=np.uint8)
