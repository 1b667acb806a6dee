"""World maps as similarities of local ones: seven numbers a view instead of a map."""

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from distill3d.cache.blob import Array

Pixels = tuple[Array, Array]
"""Rows and columns."""
HALF_ROUNDING = 2.0**-11
"""Greatest relative error of rounding to float16 (normal numbers)."""
FIT_POINTS = 1024
"""About as many points decide a similarity."""
SAME_DIRECTION = 1e-9
"""Points whose second singular value is below this share of the first lie on a line."""
SCALE, ROTATION, TRANSLATION = "similarity.scale", "similarity.rotation", "similarity.translation"


def fit_similarity(local: Array, world: Array) -> dict[str, Array] | None:
    """The similarity that takes the local map to the world map, float64; `None` where the points do not fix one."""

    def tells(pixels: Pixels) -> Array:
        # A point at the camera itself is a pixel without a label (sparse depth): it says nothing of the rotation.
        return finite_points(local[pixels]) & finite_points(world[pixels]) & local[pixels].any(axis=-1)

    # An exact similarity shows in some points as well as in all; every point is compared afterwards.
    pixels = spread_over(local.shape, tells)
    source, target = local[pixels].astype(np.float64), world[pixels].astype(np.float64)
    if len(source) < 3:
        return None
    # Rounding errors grow with distance, so far points must not outvote the near ones.
    distance = np.square(source).sum(axis=-1)
    weight = 1 / (distance + max(float(np.median(distance)), 1e-30))
    return _umeyama(source, target, weight / weight.sum())


def _umeyama(source: Array, target: Array, weight: Array) -> dict[str, Array] | None:
    """As `geometry.align.umeyama`, whose batches and gradients would cost a tenth of the time to write a view."""
    mean_source, mean_target = weight @ source, weight @ target
    source, target = source - mean_source, target - mean_target
    u, values, vh = np.linalg.svd((weight[:, None] * target).T @ source)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vh))])
    if not values[1] + sign[2] * values[2] > SAME_DIRECTION * values[0]:
        return None
    rotation = (u * sign) @ vh
    scale = (values * sign).sum() / (weight @ np.square(source).sum(axis=-1))
    return {SCALE: np.asarray(scale), ROTATION: rotation, TRANSLATION: mean_target - scale * (rotation @ mean_source)}


def spread_over(shape: tuple[int, ...], serves: Callable[[Pixels], Array]) -> Pixels:
    """About `FIT_POINTS` pixels that serve, from all over a map of that shape; all that do where there are fewer."""
    size = shape[0] * shape[1]
    pixels = np.divmod(np.arange(0, size, max(1, size // FIT_POINTS)), shape[1])
    good = serves(pixels)
    if np.count_nonzero(good) < FIT_POINTS // 2:
        pixels = np.divmod(np.arange(size), shape[1])
        good = serves(pixels)
    every = max(1, np.count_nonzero(good) // FIT_POINTS)
    row, column = (axis[good][::every] for axis in pixels)
    return row, column


def apply_similarity(similarity: Mapping[str, Array], local: Array) -> Array:
    """The world map of a local one, float32; a point with a value that is not finite becomes NaN altogether."""
    matrix = similarity[SCALE] * similarity[ROTATION]
    with np.errstate(over="ignore", invalid="ignore"):
        world = (local.astype(np.float64) @ matrix.T + similarity[TRANSLATION]).astype(np.float32)
    world[~finite_points(local)] = np.nan
    return np.asarray(world)


def fits_similarity(similarity: Mapping[str, Array], local: Array, world: Array) -> bool:
    """Whether the similarity of the (rounded) local map is as near to the world map as float16 rounding is.

    At every point: error <= 2^-11 * (|world| + scale * |local|) + 2^-24 * scale, the rounding of the world map itself
    and of the local map it is made from; and both maps fail to be finite at the same points.
    """
    finite = finite_points(world)
    if not np.array_equal(finite, finite_points(local)):
        return False
    rebuilt = apply_similarity(similarity, local)
    chosen = slice(None) if finite.all() else finite
    rebuilt, target, source = (array[chosen].reshape(-1, 3).astype(np.float64) for array in (rebuilt, world, local))
    scale = float(similarity[SCALE])
    error, world_size, local_size = (
        np.sqrt(np.einsum("pc,pc->p", points, points)) for points in (rebuilt - target, target, source)
    )
    reach = world_size + scale * local_size
    return bool((error <= HALF_ROUNDING * reach + 2.0**-24 * scale).all())


def finite_points(points: Array) -> Array:
    """Where all three coordinates are finite."""
    finite = np.isfinite(points)
    return np.asarray(finite[..., 0] & finite[..., 1] & finite[..., 2])


def move_points(points: Array, matrix: Array, translation: Array) -> Array:
    """`matrix @ point + translation`, float32; the coordinates lie in memory one after another."""
    x, y, z = (np.ascontiguousarray(points[..., axis]) for axis in range(3))
    moved = np.empty((3, *points.shape[:-1]), dtype=np.float32)
    # OpenCV multiplies and adds in one pass; a matrix product of this shape takes three times as long.
    for out, (a, b, c), offset in zip(moved, matrix.tolist(), translation.tolist(), strict=True):
        cv2.addWeighted(x, a, y, b, offset, dst=out)
        cv2.scaleAdd(z, c, out, dst=out)
    return np.moveaxis(moved, 0, -1)
