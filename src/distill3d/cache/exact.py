"""The codec `exact`: maps as float16, bit for bit."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distill3d.cache.blob import Array, Blob, Encoded, pack_blob, unpack_blob
from distill3d.cache.record import KEPT_WHOLE, LOCAL, WORLD
from distill3d.cache.repeats import drop_repeats, restore_repeats
from distill3d.cache.similarity import apply_similarity, fit_similarity, fits_similarity
from distill3d.errors import CacheError

HALF_SMALLEST_NORMAL = 2.0**-14


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
        kept, repeats = drop_repeats(kept)
        notes.update(repeats)
        data = pack_blob(Blob(arrays=kept, notes=notes), level=self.level)
        return Encoded(data=data, from_similarity="world" in notes)

    def decode(self, data: bytes) -> dict[str, Array]:
        """The arrays of a blob, maps as float32."""
        blob = unpack_blob(data)
        found = {name: _widen(array) for name, array in blob.arrays.items()}
        try:
            if blob.notes.get("world") == "similarity":
                found[WORLD] = apply_similarity(found, found[LOCAL])
            restore_repeats(found, blob.notes)
        except KeyError as error:
            raise CacheError(f"a view's labels lack {error}; the shard is damaged") from error
        return found


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


def _narrow(name: str, array: Array) -> Array:
    field = name.split(".", 1)[1]
    return array if array.dtype == bool or field in KEPT_WHOLE else to_half(array)


def _widen(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float16 else array
