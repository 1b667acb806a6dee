"""Maps of one number or direction a pixel as planes of whole numbers: confidences, depths and normals."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from distill3d.cache.blob import Array
from distill3d.cache.escapes import fill_escaped, pack_escapes
from distill3d.cache.pointmap import SAFETY, exponential, quantise, short_step

LEVELS = 255
"""Most steps between a confidence map's lowest and highest value."""
SPREAD, FACE_U, FACE_V = ".levels", ".face_u", ".face_v"
LOGARITHM = ".logarithm"
WORST_TURN = 1.6
"""An error of half a step along both sides of the square turns a normal by at most this many steps."""
UNIT_SLACK = 1e-3
"""A normal whose length differs from 1 by more is not one."""


def pack_confidence(name: str, values: Array, step: float = 0.0) -> tuple[dict[str, Array], dict[str, Any]]:
    """Up to 256 levels over the map's own range: of its logarithm where all are positive, else of the values.

    Fewer where steps of the logarithm would be finer than `step`; 0: always 256.
    Zeros, which mark pixels without a confidence, are escaped, so that they do not stretch the range.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    escaped = np.zeros(values.shape, dtype=bool)
    if not (np.isfinite(low) and np.isfinite(high) and low > 0):
        escaped = ~np.isfinite(values) | (values == 0)
        values, original = fill_escaped(values, escaped), values
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    else:
        original = values
    note: dict[str, Any] = {"kind": "confidence", "low": low, "high": high, "logarithmic": low > 0}
    levels = LEVELS
    if low > 0:
        values = np.log(values)
        low, high = float(np.log(np.float32(low))), float(np.log(np.float32(high)))
        levels = min(LEVELS, max(1, int(np.ceil((high - low) / step)))) if step > 0 else LEVELS
    note["levels"] = levels
    scaled = values - np.float32(low)
    scaled *= np.float32(levels / (high - low) if high > low else 0)
    plane = np.rint(scaled, out=scaled).clip(0, levels, out=scaled).astype(np.int16)
    return {name + SPREAD: plane, **pack_escapes(name, escaped, original)}, note


def unpack_confidence(name: str, arrays: Mapping[str, Array], note: Mapping[str, Any]) -> Array:
    """The map that `pack_confidence` packed, float32; its lowest and highest values are exact.

    Raises:
        KeyError, ValueError, IndexError: the arrays do not fit the note.
    """
    low, high = note["low"], note["high"]
    share = np.arange(LEVELS + 1) / note["levels"]
    table = low * (high / low) ** share if note["logarithmic"] else low + (high - low) * share
    plane = arrays[name + SPREAD]
    if plane.size and not (plane.min() >= 0 and plane.max() <= note["levels"]):
        raise ValueError(f"levels from {plane.min()} to {plane.max()}, expected 0 to {note['levels']}")
    return np.asarray(cv2.LUT(plane.astype(np.uint8), table.astype(np.float32)))


def pack_depth(name: str, depth: Array, bound: float) -> tuple[dict[str, Array], dict[str, Any]]:
    """The logarithm in steps such that every depth is off by at most `bound` times itself; 0 (unknown) stays 0."""
    step = short_step(2 * float(np.log1p(SAFETY * bound)))
    with np.errstate(all="ignore"):
        usable = np.isfinite(depth) & (depth > 1e-18)
        plane = quantise(np.log(depth), step, ~usable)
        escaped = ~(np.abs(exponential(plane, step) - depth) <= bound * depth) | ~usable
    return {name + LOGARITHM: plane, **pack_escapes(name, escaped, depth)}, {"kind": "depth", "step": step}


def unpack_depth(name: str, arrays: Mapping[str, Array], note: Mapping[str, Any]) -> Array:
    """The map that `pack_depth` packed, float32.

    Raises:
        KeyError, ValueError: the arrays do not fit the note.
    """
    return exponential(arrays[name + LOGARITHM], note["step"])


def pack_normals(name: str, normals: Array, bound_rad: float) -> tuple[dict[str, Array], dict[str, Any]]:
    """Unit vectors on an octahedron unfolded to a square (Cigolle et al. 2014), off by at most an angle.

    What is no unit vector (zeros, NaN) is escaped.
    """
    step = SAFETY * bound_rad / WORST_TURN
    with np.errstate(all="ignore"):
        length = np.sqrt(np.square(normals).sum(axis=-1))
        usable = np.abs(length - 1) <= UNIT_SLACK
        x, y, z = (normals[..., axis] / np.abs(normals).sum(axis=-1) for axis in range(3))
        behind = z < 0
        u = np.where(behind, (1 - np.abs(y)) * np.where(x < 0, -1, 1), x)
        v = np.where(behind, (1 - np.abs(x)) * np.where(y < 0, -1, 1), y)
        planes = [quantise(side, step, ~usable) for side in (u, v)]
        decoded = _normals_of(planes[0], planes[1], step)
        chord = np.sqrt(np.square(decoded - normals / length[..., None]).sum(axis=-1))
        escaped = ~(chord <= 2 * np.sin(bound_rad / 2)) | ~usable
    named = {name + FACE_U: planes[0], name + FACE_V: planes[1]}
    return {**named, **pack_escapes(name, escaped, normals)}, {"kind": "normal", "step": step}


def unpack_normals(name: str, arrays: Mapping[str, Array], note: Mapping[str, Any]) -> Array:
    """The map that `pack_normals` packed, float32 unit vectors.

    Raises:
        KeyError, ValueError: the arrays do not fit the note.
    """
    return _normals_of(arrays[name + FACE_U], arrays[name + FACE_V], note["step"])


UNPACK = {"confidence": unpack_confidence, "depth": unpack_depth, "normal": unpack_normals}
"""By the kind in a map's note. Escaped pixels are put in afterwards."""


def _normals_of(plane_u: Array, plane_v: Array, step: float) -> Array:
    u, v = (plane * np.float32(step) for plane in (plane_u, plane_v))
    z = 1 - np.abs(u) - np.abs(v)
    fold = np.maximum(-z, 0)
    found = np.stack([u - np.copysign(fold, u), v - np.copysign(fold, v), z], axis=-1)
    return np.asarray(found / np.sqrt(np.square(found).sum(axis=-1, keepdims=True)))
