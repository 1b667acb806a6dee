"""The codec `compact`: maps in whole numbers, every finite point within a bound that is checked as it is written."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill3d.cache import scalars
from distill3d.cache.blob import Array, Blob, Encoded, pack_blob, unpack_blob
from distill3d.cache.escapes import pack_escapes, put_escapes
from distill3d.cache.exact import to_half
from distill3d.cache.pointmap import PointPlanes, beyond_bound, dequantise_points, quantise_points
from distill3d.cache.record import DEPTH, KEPT_WHOLE, LOCAL, WORLD
from distill3d.cache.repeats import drop_repeats, restore_repeats
from distill3d.cache.similarity import ROTATION, SCALE, TRANSLATION, finite_points, fit_similarity, move_points
from distill3d.errors import CacheError

FRAME = "similarity."
POSE, NORMAL = "prediction.world_from_camera", "prediction.normal"
FEW_ESCAPED = 0.01
"""Up to this share of the points may differ from a similarity before the world map gets planes of its own."""


@dataclass(frozen=True, kw_only=True)
class _Local:
    """The local map, as other maps of the view may build on it."""

    coded: PointPlanes
    points: Array
    """Those that a reader finds."""
    escaped: Array


@dataclass(frozen=True, kw_only=True)
class CompactCodec:
    """Pointmaps within `bound`, relative to the distance from the camera; masks as bits, poses as they came.

    What the bound means: |decoded - point| <= bound * |point| for the local map; for the world map the same with
    |point - camera| in units of the world, where the camera stands at the translation of the view's similarity or pose;
    for a depth map |decoded - z| <= bound * z (where the depth is the local map's own z: bound * |point|). Values that
    are not finite, and those that cannot be held within the bound, come back bit for bit.
    """

    bound: float = 2.0**-11
    """Greatest relative error of a finite point."""
    normal_deg: float = 0.2
    """Greatest angle by which a normal turns."""
    confidence_step: float = 0.01
    """Confidences have 256 levels over their view's range (of logarithms), but none finer than this: errors of half a
    per cent do not matter to a weight, and noise costs bits. 0: always 256 levels."""
    level: int = 3
    """Of zstd, for masks and what is kept whole."""

    def __post_init__(self) -> None:
        if not 2.0**-18 <= self.bound <= 0.1:
            raise CacheError(f"the bound is {self.bound}; expected 2^-18 (float32 holds no less) to 0.1")
        if not 0.001 <= self.normal_deg <= 10:
            raise CacheError(f"normal_deg is {self.normal_deg}; expected 0.001 to 10 degrees")
        if not 0 <= self.confidence_step <= 0.1:
            raise CacheError(f"confidence_step is {self.confidence_step}; expected 0 to 0.1, a share of a confidence")

    @property
    def name(self) -> str:
        """As in the header of the cache."""
        return "compact"

    def settings(self) -> dict[str, Any]:
        """Everything that decides the bytes."""
        return dataclasses.asdict(self)

    def encode(self, arrays: Mapping[str, Array]) -> Encoded:
        """A blob of one view."""
        kept, notes = drop_repeats({name: _single(name, array) for name, array in arrays.items()})
        local = _quantise_local(kept, self.bound)
        stored: dict[str, Array] = {}
        maps: dict[str, dict[str, Any]] = {}
        for name, array in kept.items():
            packed, note = self._pack(name, array, kept, local)
            stored.update(packed)
            if note:
                maps[name] = note
        data = pack_blob(Blob(arrays=stored, notes={**notes, "maps": maps}), level=self.level)
        return Encoded(data=data, from_similarity=maps.get(WORLD, {}).get("kind") == "similarity")

    def decode(self, data: bytes) -> dict[str, Array]:
        """The arrays of a blob, maps as float32."""
        blob = unpack_blob(data)
        maps: dict[str, dict[str, Any]] = blob.notes.get("maps", {})
        found = {name: array for name, array in blob.arrays.items() if not _stands_for_a_map(name, maps)}
        try:
            for name in sorted(maps, key=lambda name: name == WORLD):  # the world map may need the local one
                found[name] = _unpack(name, maps, blob.arrays, found)
            restore_repeats(found, blob.notes)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise CacheError(f"a view's labels do not fit together ({error!r}); the shard is damaged") from error
        return {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in found.items()}

    def _pack(
        self, name: str, array: Array, kept: Mapping[str, Array], local: _Local | None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """The arrays that stand for a map, and the note that says how; no note for what is kept whole."""
        field = name.split(".", 1)[1]
        if array.dtype == bool or field in KEPT_WHOLE:
            return {name: array}, {}
        if name == LOCAL and local is not None:
            note = {"kind": "points", **local.coded.note()}
            return {**local.coded.name(LOCAL), **pack_escapes(LOCAL, local.escaped, array)}, note
        if name == WORLD and (found := self._pack_world(array, kept, local)) is not None:
            return found
        if name == DEPTH:
            return scalars.pack_depth(name, array, self.bound)
        if name == NORMAL:
            return scalars.pack_normals(name, array, float(np.deg2rad(self.normal_deg)))
        if "confidence" in field:
            return scalars.pack_confidence(name, array, self.confidence_step)
        return {name: self._whole(array)}, {}

    def _pack_world(
        self, world: Array, kept: Mapping[str, Array], local: _Local | None
    ) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """As a similarity of the local map, or in whole numbers in the frame of its camera; else `None`."""
        frame = fit_similarity(kept[LOCAL], world) if LOCAL in kept else None
        if frame is not None and local is not None:
            moved = _to_world(frame, local.points)
            escaped = beyond_bound(moved, world, self.bound, frame[TRANSLATION])
            if not escaped.any() or (escaped & finite_points(world)).sum() <= FEW_ESCAPED * escaped.size:
                return {**frame, **pack_escapes(WORLD, escaped, world)}, {"kind": "similarity"}
        if frame is None and POSE in kept:
            pose = kept[POSE].astype(np.float64)
            frame = {SCALE: np.ones(()), ROTATION: pose[:3, :3], TRANSLATION: pose[:3, 3]}
        if frame is None:
            return None
        base = None if local is None else local.coded
        coded = quantise_points(_to_camera(frame, world), self.bound, base)
        if coded is None:
            return None
        escaped = beyond_bound(_to_world(frame, dequantise_points(coded, base)), world, self.bound, frame[TRANSLATION])
        place = {name.removeprefix(FRAME): part.tolist() for name, part in frame.items()}
        note = {"kind": "points", "frame": place, **coded.note(), **({} if base is None else {"relative_to": LOCAL})}
        return {**coded.name(WORLD), **pack_escapes(WORLD, escaped, world)}, note

    def _whole(self, array: Array) -> Array:
        """float16 where that keeps the bound, else float32."""
        half = to_half(array)
        if array.shape[-1] == 3 and beyond_bound(half.astype(np.float32), array, self.bound).any():
            return array.astype(np.float32)
        return half


def _single(name: str, array: Array) -> Array:
    """Maps are float32 whatever they came as; the coordinates of points lie in memory one after another."""
    if array.dtype == np.float64 and name.split(".", 1)[1] not in KEPT_WHOLE:
        array = array.astype(np.float32)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, -1, 0)), 0, -1) if name in (LOCAL, WORLD) else array


def _quantise_local(kept: Mapping[str, Array], bound: float) -> _Local | None:
    coded = quantise_points(kept[LOCAL], bound) if LOCAL in kept else None
    if coded is None:
        return None
    points = dequantise_points(coded)
    escaped = beyond_bound(points, kept[LOCAL], bound)
    if escaped.any():
        points[escaped] = kept[LOCAL][escaped]
    return _Local(coded=coded, points=points, escaped=escaped)


def _stands_for_a_map(name: str, maps: Mapping[str, Any]) -> bool:
    return name.rsplit(".", 1)[0] in maps


def _unpack(name: str, maps: Mapping[str, Any], arrays: Mapping[str, Array], found: Mapping[str, Array]) -> Array:
    note = maps[name]
    kind = note["kind"]
    if kind == "similarity":
        points = _to_world(arrays, found[LOCAL])
    elif kind == "points":
        other = note.get("relative_to")
        base = None if other is None else PointPlanes.read(other, arrays, maps[other])
        points = dequantise_points(PointPlanes.read(name, arrays, note), base)
        if "frame" in note:
            frame = {FRAME + part: np.asarray(value) for part, value in note["frame"].items()}
            points = _to_world(frame, points)
    elif kind in scalars.UNPACK:
        points = scalars.UNPACK[kind](name, arrays, note)
    else:
        raise ValueError(f"unknown kind of map {kind!r}")
    put_escapes(name, arrays, points)
    return points


def _to_world(frame: Mapping[str, Array], points: Array) -> Array:
    return move_points(points, frame[SCALE] * frame[ROTATION], frame[TRANSLATION])


def _to_camera(frame: Mapping[str, Array], world: Array) -> Array:
    """Subtracted in float64 first: points far from the origin lose no bits."""
    with np.errstate(all="ignore"):
        points = (world - frame[TRANSLATION]) @ (frame[ROTATION] / frame[SCALE])
        return np.asarray(points.astype(np.float32))
