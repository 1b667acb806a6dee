"""A pointmap in the frame of its camera as three planes of whole numbers, within a bound on the relative 3D error.

A point (x, y, z) is kept as the logarithm of its distance d = |(x, y, z)| and as its ray (x / z, y / z), of which only
the difference to the pinhole camera that fits best is stored. Distance rather than depth, because an error along the
ray and one across it are at right angles: if ln d is off by at most a and the ray by at most c along each axis, the
point is off by at most sqrt(a^2 + 2 c^2) times its distance. How the bound is split between the two follows from how
far the rays stray from a pinhole's: noise in all directions wants equal steps, exact rays leave all to the distance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from distill3d.cache.blob import Array
from distill3d.cache.escapes import fill_escaped, same_numbers
from distill3d.cache.planes import Plane
from distill3d.cache.similarity import spread_over

PARTS = DISTANCE, RAY_X, RAY_Y = ".distance", ".ray_x", ".ray_y"
SAFETY = 0.99
"""The steps use this share of the bound; the rest is for rounding in float32."""
NEAREST = 1e-18
"""Points nearer to the camera have no distance in single precision."""
STEEPEST = 0.05
"""Points with z below this share of their distance (87 degrees off the axis) have no usable ray."""
SHARES = (0.05, 0.15, 0.3, 0.45, 0.577)
"""Shares of the bound that each ray axis may get; the last gives distance and both axes the same."""
_NARROW = np.iinfo(np.int16)
MOST_UNUSABLE = 0.25
"""A map with more than this share of its points behind the camera or nearly so is not a camera's."""


@dataclass(frozen=True, kw_only=True)
class PointPlanes:
    """A pointmap in whole numbers."""

    planes: tuple[Plane, ...]
    """Distance, ray x, ray y."""
    distance_step: float
    """Of the natural logarithm of the distance."""
    ray_step: float
    pinhole: tuple[tuple[float, ...], ...] | None = None
    """The camera that the rays are differences to: at pixel (u, v) its ray is p[0] + p[1] u + p[2] v, first x, then y.
    `None`: the differences are to another map, and the distance's too."""

    def note(self) -> dict[str, Any]:
        """All but the planes, as JSON values."""
        steps = {"distance_step": self.distance_step, "ray_step": self.ray_step}
        return steps if self.pinhole is None else {**steps, "pinhole": self.pinhole}

    def name(self, name: str) -> dict[str, Array]:
        """The planes by the names that they are stored under."""
        return {name + part: plane for part, plane in zip(PARTS, self.planes, strict=True)}

    @classmethod
    def read(cls, name: str, arrays: Mapping[str, Array], note: Mapping[str, Any]) -> "PointPlanes":
        """From what `name` and `note` gave.

        Raises:
            KeyError: a plane or an entry of the note is missing.
        """
        pinhole = note.get("pinhole")
        return cls(
            planes=tuple(arrays[name + part] for part in PARTS),
            distance_step=note["distance_step"],
            ray_step=note["ray_step"],
            pinhole=None if pinhole is None else tuple(map(tuple, pinhole)),
        )


def quantise_points(points: Array, bound: float, base: PointPlanes | None = None) -> PointPlanes | None:
    """Whole numbers for a pointmap, such that points before the camera are off by at most `bound` of their distance.

    The rounding of float32 may break the bound here and there: the caller compares, and escapes what is beyond it.
    `None` where the map is not one of a camera that looks forward. With `base`, only differences to that map of the
    same camera are left.
    """
    x, y, z = (np.ascontiguousarray(points[..., axis]) for axis in range(3))
    with np.errstate(all="ignore"):
        squared = _squared_length(x, y, z)
        usable = (z > STEEPEST * np.sqrt(squared)) & (squared > NEAREST**2)
        all_usable = bool(usable.all())
        if not all_usable:
            finite = np.isfinite(squared)
            usable &= finite
            if np.count_nonzero(finite & ~usable) > MOST_UNUSABLE * np.count_nonzero(finite):
                return None
        stray = np.empty((2, *z.shape), dtype=np.float32)
        for ray, side in zip(stray, (x, y), strict=True):
            np.divide(side, z, out=ray)
        pinhole: tuple[tuple[float, ...], ...] | None = None
        if base is None:
            pinhole = _fit_pinhole(stray, usable)
            stray -= _pinhole_rays(pinhole, z.shape)
        else:
            stray -= _rays(base)
        roughness = [_roughness(part, None if all_usable else usable) for part in stray]
        distance_step, ray_step = _choose_steps(roughness, SAFETY * bound, base)
        escaped = None if all_usable else ~usable
        level = quantise(np.log(squared, out=squared), 2 * distance_step, escaped)
        if base is not None:
            level = level.astype(np.int32) - _ratio(base, distance_step) * base.planes[0].astype(np.int32)
        planes = (level, *(quantise(part, ray_step, escaped) for part in stray))
    return PointPlanes(planes=planes, distance_step=distance_step, ray_step=ray_step, pinhole=pinhole)


def dequantise_points(coded: PointPlanes, base: PointPlanes | None = None) -> Array:
    """x, y, z from whole numbers, float32 (height, width, 3); the coordinates lie in memory one after another.

    Raises:
        ValueError: differences to another map, which is not given.
    """
    level = coded.planes[0]
    if base is not None:
        level = level + _ratio(base, coded.distance_step) * base.planes[0].astype(np.int32)
    x, y, z = points = np.empty((3, *level.shape), dtype=np.float32)
    _rays(coded, base, out=points[:2])
    z[...] = 1
    for ray in (x, y):
        cv2.accumulateSquare(ray, z)
    cv2.pow(z, -0.5, dst=z)
    z *= exponential(level, coded.distance_step)
    x *= z
    y *= z
    return np.moveaxis(points, 0, -1)


def beyond_bound(decoded: Array, points: Array, bound: float, camera: Array | float = 0.0) -> Array:
    """Where a decoded point is neither within `bound` times its distance from `camera`, nor the very same."""
    error, distance = (np.zeros(points.shape[:-1], dtype=np.float32) for _ in range(2))
    step = np.empty_like(error)
    with np.errstate(all="ignore"):
        for axis, origin in enumerate(np.broadcast_to(camera, 3).astype(np.float32)):
            own = points[..., axis]
            cv2.accumulateSquare(np.subtract(decoded[..., axis], own, out=step), error)
            cv2.accumulateSquare(np.subtract(own, origin, out=step), distance)
        distance *= np.float32(bound) ** 2
        beyond: Array = ~(error < distance)  # where both are infinite, this says nothing
    if beyond.any():
        beyond[beyond] = ~same_numbers(decoded[beyond], points[beyond]).all(axis=-1)
    return beyond


def exponential(plane: Plane, step: float) -> Array:
    """exp(step * n), float32: in single precision for 16 bits, where the products are exact (see `short_step`)."""
    if plane.dtype == np.int16:
        product = np.multiply(plane, np.float32(step))
        return np.asarray(np.exp(product, out=product))
    return np.asarray(np.exp(plane * step).astype(np.float32))


def short_step(step: float) -> float:
    """The greatest number of nine bits up to `step`: its multiples by 16 bits are exact in single precision."""
    mantissa, exponent = np.frexp(step)
    return float(np.ldexp(np.floor(mantissa * 512), exponent - 9))


def quantise(values: Array, step: float, escaped: Array | None) -> Plane:
    """The nearest whole multiple of `step`, in 16 bits if that is enough; where escaped, whatever packs well."""
    scaled = np.multiply(values if escaped is None else fill_escaped(values, escaped), np.float32(1 / step))
    np.rint(scaled, out=scaled)
    narrow = scaled.size == 0 or (scaled.min() >= _NARROW.min and scaled.max() <= _NARROW.max)
    return scaled.astype(np.int16 if narrow else np.int32)


def _squared_length(*parts: Array) -> Array:
    """The sum of the squares, float32."""
    total = np.zeros(parts[0].shape, dtype=np.float32)
    for part in parts:
        cv2.accumulateSquare(part, total)
    return total


def _fit_pinhole(rays: Array, usable: Array) -> tuple[tuple[float, ...], ...]:
    """The camera (with skew and roll) nearest to the rays (2, height, width)."""
    row, column = spread_over(usable.shape, usable.__getitem__)
    design = np.stack([np.ones(len(row)), column, row], axis=1)
    fit = np.linalg.lstsq(design, rays[:, row, column].T.astype(np.float64), rcond=None)[0].astype(np.float32)
    return tuple(fit[:, 0].tolist()), tuple(fit[:, 1].tolist())


def _pinhole_rays(pinhole: Sequence[Sequence[float]], shape: tuple[int, ...], out: Array | None = None) -> Array:
    column, row = (np.arange(side, dtype=np.float32) for side in shape[::-1])
    rays = np.empty((2, *shape), dtype=np.float32) if out is None else out
    # A product of thin matrices takes a quarter of the time of adding a row and a column.
    rows = np.stack([np.ones_like(row), row], axis=1)
    for ray, (base, along, down) in zip(rays, np.array(pinhole, dtype=np.float32), strict=True):
        np.matmul(rows, np.stack([base + along * column, np.full_like(column, down)]), out=ray)
    return rays


def _rays(coded: PointPlanes, base: PointPlanes | None = None, out: Array | None = None) -> Array:
    """x / z and y / z, float32 (2, height, width)."""
    if coded.pinhole is not None:
        rays = _pinhole_rays(coded.pinhole, coded.planes[0].shape, out)
    elif base is not None:
        rays = _rays(base, out=out)
    else:
        raise ValueError("a map that is kept as differences to another one, which is not there")
    for ray, plane in zip(rays, coded.planes[1:], strict=True):
        if plane.any():
            cv2.addWeighted(ray, 1.0, plane, coded.ray_step, 0.0, dst=ray, dtype=cv2.CV_32F)
    return rays


def _ratio(base: PointPlanes, distance_step: float) -> int:
    """Steps of distance that make one of the base's; a whole number, so that its planes carry over."""
    return round(base.distance_step / distance_step)


def _choose_steps(roughness: Sequence[float], bound: float, base: PointPlanes | None) -> tuple[float, float]:
    """Steps of distance and of rays that share the bound at the least cost, for rays that stray so much."""
    if base is None:
        choices = [
            (short_step(2 * float(np.log1p(bound * np.sqrt(1 - 2 * share**2)))), 2 * share * bound) for share in SHARES
        ]
    else:
        # Half its step leaves 0.6 of the bound to each axis; its own leaves what its rays have.
        left = float(np.sqrt((bound**2 - np.expm1(base.distance_step / 4) ** 2) / 2))
        choices = [(base.distance_step, base.ray_step), (base.distance_step / 2, 2 * left)]

    def bits(steps: tuple[float, float]) -> float:
        return float(-np.log2(steps[0]) + sum(np.log2(1 + 3.8 * rough / steps[1]) for rough in roughness))

    return min(choices, key=bits)


def _roughness(stray: Array, usable: Array | None) -> float:
    """Mean step between neighbours of a row; for noise about 1.13 deviations. A part of the rows shows it."""
    every = max(1, stray.shape[0] // 32)
    steps = np.abs(np.diff(stray[::every], axis=1))
    if usable is not None:
        steps = steps[usable[::every, 1:] & usable[::every, :-1]]
    return float(steps.mean()) if steps.size else 0.0
