"""Labels of codec `compact` decoded where they are wanted: zstd on the CPU, every pixel's work in torch on a device.

What crosses to the device is a byte a pixel and plane, a quarter of the decoded maps. Views whose blobs are built alike
are decoded together, so a sample takes some hundred kernels, whatever its number of views. The results are those of
`CompactCodec.decode` up to the rounding of single precision.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill3d.cache.blob import Array, Part, decode_part, read_parts
from distill3d.cache.compact import FRAME
from distill3d.cache.escapes import ESCAPED, VALUES
from distill3d.cache.planes import BIG, COARSEST, split_plane
from distill3d.cache.pointmap import DISTANCE, RAY_X, RAY_Y
from distill3d.cache.record import DEPTH, LOCAL, WORLD
from distill3d.cache.scalars import FACE_U, FACE_V, LOGARITHM, SPREAD
from distill3d.cache.similarity import ROTATION, SCALE, TRANSLATION

Labels = dict[str, Tensor]
_KINDS = {16: torch.int16, 32: torch.int32}


def decode_on(device: torch.device | str, blobs: Sequence[bytes]) -> Labels:
    """The arrays of some views, each [views ...]; names that only some of the views have are left out.

    Raises:
        CacheError: a blob is damaged.
        KeyError, ValueError: its arrays do not fit its notes.
    """
    views = [read_parts(blob) for blob in blobs]
    alike: dict[Any, list[int]] = {}
    for number, (parts, notes) in enumerate(views):
        alike.setdefault(_build(parts, notes), []).append(number)
    groups = [(_Group([views[number] for number in chosen], device).labels(), chosen) for chosen in alike.values()]
    names = set.intersection(*(set(labels) for labels, _ in groups))
    if len(groups) == 1:
        return {name: groups[0][0][name] for name in sorted(names)}
    order = torch.argsort(torch.tensor([number for _, chosen in groups for number in chosen])).to(device)
    return {name: torch.cat([labels[name] for labels, _ in groups])[order] for name in sorted(names)}


def _build(parts: Mapping[str, Part], notes: Mapping[str, Any]) -> Any:
    """What must be the same for views to be decoded together."""
    arrays = tuple((name, part.dtype, part.shape, part.encoding) for name, part in parts.items() if _is_dense(name))
    maps = tuple((name, note["kind"], tuple(sorted(note))) for name, note in sorted(notes.get("maps", {}).items()))
    logarithmic = tuple(note.get("logarithmic") for _, note in sorted(notes.get("maps", {}).items()))
    return arrays, maps, logarithmic, notes.get("depth"), tuple(sorted(notes.get("same", {}).items()))


def _is_dense(name: str) -> bool:
    return not name.endswith((ESCAPED, VALUES))


class _Group:
    """Views of one build."""

    def __init__(self, views: Sequence[tuple[Mapping[str, Part], Mapping[str, Any]]], device: torch.device | str):
        self._parts = [parts for parts, _ in views]
        self._notes = [notes for _, notes in views]
        self._device = device

    def labels(self) -> Labels:
        maps: Mapping[str, Any] = self._notes[0].get("maps", {})
        found: Labels = {}
        for name, part in self._parts[0].items():
            if name.rsplit(".", 1)[0] not in maps and not part.encoding.startswith("plane-"):
                found[name] = self._stack(name)
        for name in sorted(maps, key=lambda name: name == WORLD):
            found[name] = self._escape(name, self._map(name, maps[name]["kind"], found))
        if self._notes[0].get("depth") == "z":
            found[DEPTH] = found[LOCAL][..., 2]
        for name, twin in self._notes[0].get("same", {}).items():
            found[name] = found[twin].clone()
        return {name: value.float() if value.dtype == torch.float16 else value for name, value in found.items()}

    def _map(self, name: str, kind: str, found: Mapping[str, Tensor]) -> Tensor:
        if kind == "similarity":
            return _move(found[LOCAL], *(found[part] for part in (SCALE, ROTATION, TRANSLATION)))
        if kind == "points":
            points = self._points(name)
            if "frame" not in self._note(name):
                return points
            parts = (part.removeprefix(FRAME) for part in (SCALE, ROTATION, TRANSLATION))
            return _move(points, *(self._numbers(name, "frame", part) for part in parts))
        if kind == "depth":
            return _exponential(self._plane(name + LOGARITHM), self._numbers(name, "step"))
        if kind == "confidence":
            share = self._plane(name + SPREAD) / self._numbers(name, "levels").float()[:, None, None]
            low, high = (self._numbers(name, key).float()[:, None, None] for key in ("low", "high"))
            return low * (high / low) ** share if self._note(name)["logarithmic"] else low + (high - low) * share
        if kind == "normal":
            step = self._numbers(name, "step").float()[:, None, None]
            u, v = (self._plane(name + part) * step for part in (FACE_U, FACE_V))
            z = 1 - u.abs() - v.abs()
            fold = (-z).clamp(min=0)
            return torch.nn.functional.normalize(
                torch.stack([u - torch.copysign(fold, u), v - torch.copysign(fold, v), z], dim=-1), dim=-1
            )
        raise ValueError(f"unknown kind of map {kind!r}")

    def _points(self, name: str) -> Tensor:
        level = self._plane(name + DISTANCE)
        other = self._note(name).get("relative_to")
        if other is not None:
            ratio = (self._numbers(other, "distance_step") / self._numbers(name, "distance_step")).round().int()
            level = level.int() + ratio[:, None, None] * self._plane(other + DISTANCE).int()
        x, y = self._rays(name)
        z = _exponential(level, self._numbers(name, "distance_step")) / (1 + x.square() + y.square()).sqrt()
        return torch.stack([x * z, y * z, z], dim=1).permute(0, 2, 3, 1)

    def _rays(self, name: str) -> list[Tensor]:
        planes = [self._plane(name + part) for part in (RAY_X, RAY_Y)]
        other = self._note(name).get("relative_to")
        if other is not None:
            rays = self._rays(other)
        else:
            height, width = planes[0].shape[1:]
            row = torch.arange(height, device=self._device, dtype=torch.float32)[:, None]
            column = torch.arange(width, device=self._device, dtype=torch.float32)
            pinhole = self._numbers(name, "pinhole").float()[..., None, None]  # (views, 2, 3, 1, 1)
            rays = [pinhole[:, axis, 0] + pinhole[:, axis, 1] * column + pinhole[:, axis, 2] * row for axis in (0, 1)]
        step = self._numbers(name, "ray_step").float()[:, None, None]
        return [ray + step * plane for ray, plane in zip(rays, planes, strict=True)]

    def _escape(self, name: str, values: Tensor) -> Tensor:
        """Set the pixels that have values of their own."""
        masks = np.zeros(values.shape[:3], dtype=bool)
        own: list[Array] = []
        for view, parts in enumerate(self._parts):
            if name + ESCAPED in parts:
                masks[view] = decode_part(parts[name + ESCAPED])
                own.append(decode_part(parts[name + VALUES]))
        if own:
            values[self._send(masks)] = self._send(np.concatenate(own))
        return values

    def _plane(self, name: str) -> Tensor:
        """Whole numbers (views, height, width)."""
        first = self._parts[0][name]
        bits, predictor = int(first.dtype.removeprefix("int")), first.encoding.removeprefix("plane-")
        pixels = first.shape[0] * first.shape[1]
        lows, highs = zip(*(split_plane(parts[name].data, pixels, bits // 8) for parts in self._parts), strict=True)
        low = self._send(np.stack(lows))
        rest = _unfold(low.to(_KINDS[bits]))
        high = np.concatenate([np.ascontiguousarray(part.T).view(f"<i{bits // 8}")[:, 0] for part in highs])
        if high.size:
            rest[low == BIG] = _unfold(self._send(high) + BIG)
        return _restore(rest, predictor, first.shape)

    def _stack(self, name: str) -> Tensor:
        return self._send(np.stack([decode_part(parts[name]) for parts in self._parts]))

    def _note(self, name: str) -> Mapping[str, Any]:
        note: Mapping[str, Any] = self._notes[0]["maps"][name]
        return note

    def _numbers(self, name: str, *keys: str) -> Tensor:
        """An entry of a map's notes [views ...], float64."""
        entries = [notes["maps"][name] for notes in self._notes]
        for key in keys:
            entries = [entry[key] for entry in entries]
        return self._send(np.array(entries, dtype=np.float64))

    def _send(self, array: Array) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _unfold(folded: Tensor) -> Tensor:
    """0, 1, 2, 3, ... as 0, -1, 1, -2, ...; the shift must not bring a sign."""
    bits = torch.iinfo(folded.dtype).bits
    return ((folded >> 1) & ((1 << (bits - 1)) - 1)) ^ -(folded & 1)


def _restore(rest: Tensor, predictor: str, shape: Sequence[int]) -> Tensor:
    """The planes (views, height, width) of `planes.predict`'s differences (views, pixels)."""
    if predictor == "pyramid" and min(shape) >= COARSEST:
        return _finer(rest, shape)
    plane = rest.view(len(rest), *shape)
    return plane if predictor == "none" else plane.cumsum(dim=1).cumsum(dim=2).to(rest.dtype)


def _finer(rest: Tensor, shape: Sequence[int]) -> Tensor:
    whole = rest.new_empty((len(rest), *shape))
    corners, right, below, centres = (whole[:, row::2, column::2] for row in (0, 1) for column in (0, 1))
    sizes = [part[0].numel() for part in (corners, centres, right, below)]
    first = rest.shape[1] - sum(sizes[1:])
    split = torch.split(rest[:, first:], sizes[1:], dim=1)
    rests = [part.reshape(target.shape) for part, target in zip(split, (centres, right, below), strict=True)]
    corners.copy_(_restore(rest[:, :first], "pyramid", corners.shape[1:]))
    rows, columns = corners.shape[1:]
    missing = (shape[1] // 2 + 1 - columns, shape[0] // 2 + 1 - rows)
    around = _bordered(corners, (0, missing[0], 0, missing[1]))
    centres.copy_(rests[0] + _middle(around[:, :-1, :-1], around[:, :-1, 1:], around[:, 1:, :-1], around[:, 1:, 1:]))
    beside = _bordered(centres, (1, 1, 1, 1))
    above_below = (beside[:, :rows, 1:-1], beside[:, 1 : rows + 1, 1:-1])
    right.copy_(rests[1] + _middle(around[:, :rows, :-1], around[:, :rows, 1:], *above_below))
    left_right = (beside[:, 1:-1, :columns], beside[:, 1:-1, 1 : columns + 1])
    below.copy_(rests[2] + _middle(around[:, :-1, :columns], around[:, 1:, :columns], *left_right))
    return whole


def _bordered(plane: Tensor, border: tuple[int, int, int, int]) -> Tensor:
    """With so many columns and rows more on each side, the same as the last."""
    left, right, above, below = border
    row = torch.arange(-above, plane.shape[1] + below, device=plane.device).clamp(0, plane.shape[1] - 1)
    column = torch.arange(-left, plane.shape[2] + right, device=plane.device).clamp(0, plane.shape[2] - 1)
    return plane[:, row][:, :, column]


def _middle(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    low = torch.maximum(torch.minimum(a, b), torch.minimum(c, d))
    return (low + torch.minimum(torch.maximum(a, b), torch.maximum(c, d))) >> 1


def _exponential(plane: Tensor, step: Tensor) -> Tensor:
    """As `pointmap.exponential`."""
    wide = plane.float() if plane.dtype == torch.int16 else plane.double()
    return (wide * step.to(wide.dtype)[:, None, None]).exp().float()


def _move(points: Tensor, scale: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """One coordinate after the other, as the points lie in memory."""
    matrix = (scale[:, None, None] * rotation).float()
    planes = points.permute(0, 3, 1, 2).flatten(2)
    moved = torch.baddbmm(translation.float()[:, :, None], matrix, planes)
    return moved.view(len(points), 3, *points.shape[1:3]).permute(0, 2, 3, 1)
