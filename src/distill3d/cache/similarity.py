"""World maps as similarities of local ones: seven numbers a view instead of a map."""

from collections.abc import Mapping

import numpy as np
import torch

from distill3d.cache.blob import Array
from distill3d.errors import GeometryError
from distill3d.geometry.align import umeyama

HALF_ROUNDING = 2.0**-11
"""Greatest relative error of rounding to float16 (normal numbers)."""
FIT_POINTS = 2048
"""About as many points decide a similarity."""
SCALE, ROTATION, TRANSLATION = "similarity.scale", "similarity.rotation", "similarity.translation"


def fit_similarity(local: Array, world: Array) -> dict[str, Array] | None:
    """The similarity that takes the local map to the world map, float64; `None` where the points do not fix one."""
    # A point at the camera itself is a pixel without a label (sparse depth): it says nothing of the rotation.
    finite = finite_points(local) & finite_points(world) & local.any(axis=-1)
    # An exact similarity shows in some points as well as in all; every point is compared afterwards.
    chosen = spread_over(finite)
    source, target = (array[chosen].astype(np.float64) for array in (local, world))
    if len(source) < 3:
        return None
    # Rounding errors grow with distance, so far points must not outvote the near ones.
    distance = np.square(source).sum(axis=-1)
    weight = 1 / (distance + max(float(np.median(distance)), 1e-30))
    try:
        found = umeyama(torch.from_numpy(source), torch.from_numpy(target), torch.from_numpy(weight))
    except GeometryError:
        return None
    parts = {SCALE: found.scale, ROTATION: found.rotation, TRANSLATION: found.translation}
    return {name: part.double().numpy() for name, part in parts.items()}


def spread_over(mask: Array) -> tuple[Array, Array]:
    """Rows and columns of about `FIT_POINTS` true pixels of a mask, or of all where it has fewer."""
    chosen = np.arange(0, mask.size, max(1, mask.size // FIT_POINTS))
    chosen = chosen[mask.reshape(-1)[chosen]]
    if len(chosen) < FIT_POINTS // 2:
        chosen = np.flatnonzero(mask)
        chosen = chosen[:: max(1, len(chosen) // FIT_POINTS)]
    row, column = np.divmod(chosen, mask.shape[1])
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
    """`matrix @ point + translation`, float32; faster than a matrix product of this shape, and always summed alike."""
    x, y, z = (points[..., axis] for axis in range(3))
    moved = np.empty((3, *points.shape[:-1]), dtype=np.float32)
    with np.errstate(all="ignore"):
        for out, row, offset in zip(moved, matrix.astype(np.float32), translation.astype(np.float32), strict=True):
            np.multiply(x, row[0], out=out)
            out += y * row[1]
            out += z * row[2]
            out += offset
    return np.moveaxis(moved, 0, -1)
