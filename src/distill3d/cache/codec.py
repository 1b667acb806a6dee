"""How the arrays of a view become a blob. `exact` keeps float16, bit for bit; other codecs join `CODECS`."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch

from distill3d.cache.blob import Array, Blob, pack_blob, unpack_blob
from distill3d.errors import CacheError, GeometryError
from distill3d.geometry.align import umeyama

HALF_ROUNDING = 2.0**-11
"""Greatest relative error of rounding to float16 (normal numbers)."""
HALF_SMALLEST_NORMAL = 2.0**-14
FIT_POINTS = 2048
"""About as many points decide a similarity."""
LOCAL, WORLD, DEPTH = "prediction.pointmap_camera", "prediction.pointmap_world", "prediction.depth"
SCALE, ROTATION, TRANSLATION = "similarity.scale", "similarity.rotation", "similarity.translation"
KEPT_WHOLE = ("intrinsics", "world_from_camera", "metric_scale")
"""Fields whose few numbers are kept as they came."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A view's labels as a blob."""

    data: bytes
    from_similarity: bool
    """The world map is not stored, but made from the local one."""


@runtime_checkable
class Codec(Protocol):
    """Packs the named arrays of one view, and unpacks them again."""

    @property
    def name(self) -> str:
        """As in the header of the cache."""

    def settings(self) -> dict[str, Any]:
        """Everything that decides the bytes."""

    def encode(self, arrays: Mapping[str, Array]) -> Encoded:
        """A blob of one view."""

    def decode(self, data: bytes) -> dict[str, Array]:
        """The arrays of a blob; with `similarity.*` where the world map is kept as a similarity."""


@dataclass(frozen=True, kw_only=True)
class ExactCodec:
    """Maps as float16, bit for bit (see `to_half` for the exceptions), masks as bits, poses as they came."""

    world: Literal["auto", "stored"] = "auto"
    """`auto` keeps the world map as a float64 similarity of the local one wherever that is within float16 rounding
    of it (`fits_similarity`), view by view; `stored` always keeps the map."""
    level: int = 3
    """Of zstd."""

    @property
    def name(self) -> str:
        """As in the header of the cache."""
        return "exact"

    def settings(self) -> dict[str, Any]:
        """Everything that decides the bytes."""
        return dataclasses.asdict(self)

    def encode(self, arrays: Mapping[str, Array]) -> Encoded:
        """A blob of one view."""
        kept = {name: _narrow(name, array) for name, array in arrays.items()}
        notes: dict[str, Any] = {}
        if self.world == "auto" and LOCAL in kept and WORLD in kept:
            similarity = fit_similarity(arrays[LOCAL], arrays[WORLD])
            if similarity is not None and fits_similarity(similarity, kept[LOCAL], arrays[WORLD]):
                del kept[WORLD]
                kept.update(similarity)
                notes["world"] = "similarity"
        if LOCAL in kept and DEPTH in kept and _same(kept[DEPTH], kept[LOCAL][..., 2]):
            del kept[DEPTH]
            notes["depth"] = "z"
        same: dict[str, str] = {}
        confidences = [name for name in kept if "confidence" in name]
        for position, name in enumerate(confidences):
            twin = next((other for other in confidences[:position] if _same(kept[other], kept[name])), None)
            if twin is not None and twin not in same:
                same[name] = twin
        for name in same:
            del kept[name]
        if same:
            notes["same"] = same
        data = pack_blob(Blob(arrays=kept, notes=notes), level=self.level)
        return Encoded(data=data, from_similarity="world" in notes)

    def decode(self, data: bytes) -> dict[str, Array]:
        """The arrays of a blob, maps as float32."""
        blob = unpack_blob(data)
        found = {name: _widen(array) for name, array in blob.arrays.items()}
        try:
            if blob.notes.get("world") == "similarity":
                found[WORLD] = apply_similarity(found, found[LOCAL])
            if blob.notes.get("depth") == "z":
                found[DEPTH] = np.ascontiguousarray(found[LOCAL][..., 2])
            for name, twin in blob.notes.get("same", {}).items():
                found[name] = found[twin].copy()
        except KeyError as error:
            raise CacheError(f"a view's labels lack {error}; the shard is damaged") from error
        return found


CODECS: dict[str, Callable[..., Codec]] = {"exact": ExactCodec}
"""Name in the header to the class that packs and unpacks; its fields are the codec's settings."""


def get_codec(name: str, settings: Mapping[str, Any] | None = None) -> Codec:
    """The codec of that name.

    Raises:
        CacheError: no such codec, or settings that it does not have.
    """
    if name not in CODECS:
        raise CacheError(f"unknown cache codec {name!r}; this version of distill3d has {', '.join(CODECS)}")
    try:
        return CODECS[name](**(settings or {}))
    except TypeError as error:
        raise CacheError(f"codec {name} does not take {dict(settings or {})}: {error}") from None


def to_half(array: Array) -> Array:
    """The array as float16; as float32 where float16 cannot hold it.

    That is: a finite value beyond 65504 (it would become infinite), or values so small that most of them would fall
    under float16's normal range (2^-14) and change. NaN and infinities are kept.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        half = array.astype(np.float16)
    # The comparisons are in float32, where NaN compares as false.
    size = np.abs(array)
    overflows = np.isinf(half) & (size < np.inf)
    small = (size > 0) & (size < HALF_SMALLEST_NORMAL)
    if 2 * int(small.sum()) > int(np.count_nonzero(size)):
        overflows |= small & (half != array)
    return array.astype(np.float32) if bool(overflows.any()) else half


def fit_similarity(local: Array, world: Array) -> dict[str, Array] | None:
    """The similarity that takes the local map to the world map, float64; `None` where the points do not fix one."""
    finite = _finite_points(local) & _finite_points(world)
    # An exact similarity shows in some points as well as in all; every point is compared afterwards.
    step = max(1, int(finite.sum()) // FIT_POINTS)
    chosen = np.flatnonzero(finite)[::step]
    source, target = (array.reshape(-1, 3)[chosen].astype(np.float64) for array in (local, world))
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


def apply_similarity(similarity: Mapping[str, Array], local: Array) -> Array:
    """The world map of a local one, float32; a point with a value that is not finite becomes NaN altogether."""
    matrix = similarity[SCALE] * similarity[ROTATION]
    with np.errstate(over="ignore", invalid="ignore"):
        world = (local.astype(np.float64) @ matrix.T + similarity[TRANSLATION]).astype(np.float32)
    world[~_finite_points(local)] = np.nan
    return np.asarray(world)


def fits_similarity(similarity: Mapping[str, Array], local: Array, world: Array) -> bool:
    """Whether the similarity of the (rounded) local map is as near to the world map as float16 rounding is.

    At every point: error <= 2^-11 * (|world| + scale * |local|) + 2^-24 * scale, the rounding of the world map itself
    and of the local map it is made from; and both maps fail to be finite at the same points.
    """
    finite = _finite_points(world)
    if not np.array_equal(finite, _finite_points(local)):
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


def _finite_points(points: Array) -> Array:
    finite = np.isfinite(points)
    return np.asarray(finite[..., 0] & finite[..., 1] & finite[..., 2])


def _narrow(name: str, array: Array) -> Array:
    field = name.split(".", 1)[1]
    return array if array.dtype == bool or field in KEPT_WHOLE else to_half(array)


def _widen(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _same(first: Array, second: Array) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
