"""A pointmap in the frame of its camera as three planes of whole numbers, within a bound on the relative 3D error.

A point (x, y, z) is kept as the logarithm of its distance d = |(x, y, z)| and as its ray (x / z, y / z), of which only
the difference to the pinhole camera that fits best is stored. Distance rather than depth, because an error along the
ray and one across it are at right angles: if ln d is off by at most a and the ray by at most c along each axis, the
point is off by at most sqrt(a^2 + 2 c^2) times its distance. How the bound is split between the two follows from how
far the rays stray from a pinhole's: noise in all directions wants equal steps, exact rays leave all to the distance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distill3d.cache.blob import Array
from distill3d.cache.escapes import fill_escaped, same_numbers
from distill3d.cache.planes import Plane

PARTS = DISTANCE, RAY_X, RAY_Y = ".distance", ".ray_x", ".ray_y"
SAFETY = 0.99
"""The steps use this share of the bound; the rest is for rounding in float32."""
STEEPEST = 0.05
"""Points with z below this share of their distance (87 degrees off the axis) have no usable ray."""
SHARES = (0.05, 0.15, 0.3, 0.45, 0.577)
"""Shares of the bound that each ray axis may get; the last gives distance and both axes the same."""
FIT_POINTS = 2048
MOST_UNUSABLE = 0.25
"""A map with more than this share of its points behind the camera or nearly so is not a camera's."""


@dataclass(frozen=True, kw_only=True)
class RayGrid:
    """How whole numbers become rays and distances."""

    x: tuple[float, ...]
    """Ray x of the fitted camera at pixel (u, v): x[0] + x[1] u + x[2] v; likewise y."""
    y: tuple[float, ...]
    distance_step: float
    """Of the natural logarithm of the distance."""
    ray_step: float

    def rays(self, shape: tuple[int, int]) -> tuple[Array, Array]:
        """Ray x and y of the camera at every pixel."""
        column = np.arange(shape[1], dtype=np.float32)
        row = np.arange(shape[0], dtype=np.float32)[:, None]
        first, second = (
            np.float32(base) + np.float32(along) * column + np.float32(down) * row
            for base, along, down in (self.x, self.y)
        )
        return first, second

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"x": self.x, "y": self.y, "distance_step": self.distance_step, "ray_step": self.ray_step}

    @classmethod
    def read(cls, note: Mapping[str, Any]) -> "RayGrid":
        """From JSON values."""
        return cls(
            x=tuple(note["x"]), y=tuple(note["y"]), distance_step=note["distance_step"], ray_step=note["ray_step"]
        )


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A pointmap in whole numbers."""

    grid: RayGrid
    planes: tuple[Plane, ...]
    """Distance, ray x, ray y."""
    decoded: Array
    """The points that they stand for; nonsense where there was no point in front of the camera."""


def quantise_points(points: Array, bound: float, grid: RayGrid | None = None) -> Quantised | None:
    """Whole numbers for a pointmap, such that points before the camera are off by at most `bound` of their distance.

    The rounding of float32 may break the bound here and there: the caller compares, and escapes what is beyond it.
    `None` where the map is not one of a camera that looks forward. With `grid`, that of another map is used again.
    """
    x, y, z = (np.ascontiguousarray(points[..., axis]) for axis in range(3))
    with np.errstate(all="ignore"):
        distance = np.sqrt(x * x + y * y + z * z)
        usable = np.isfinite(distance) & (distance > 1e-18) & (z > STEEPEST * distance)
        finite = np.isfinite(distance)
        if int((finite & ~usable).sum()) > MOST_UNUSABLE * int(finite.sum()):
            return None
        rays = x / z, y / z
        if grid is None:
            grid = _fit_grid(*rays, usable, bound)
        stray = (ray - pinhole for ray, pinhole in zip(rays, grid.rays(usable.shape), strict=True))
        planes = (
            quantise(np.log(distance), grid.distance_step, ~usable),
            *(quantise(ray, grid.ray_step, ~usable) for ray in stray),
        )
    return Quantised(grid=grid, planes=planes, decoded=dequantise_points(planes, grid))


def name_planes(name: str, planes: Sequence[Plane]) -> dict[str, Array]:
    """The planes by the names that they are stored under."""
    return {name + part: plane for part, plane in zip(PARTS, planes, strict=True)}


def take_planes(name: str, arrays: Mapping[str, Array]) -> tuple[Plane, ...]:
    """The planes that `name_planes` named.

    Raises:
        KeyError: one of them is missing.
    """
    return tuple(arrays[name + part] for part in PARTS)


def dequantise_points(planes: Sequence[Plane], grid: RayGrid) -> Array:
    """x, y, z from whole numbers, float32 (height, width, 3); the coordinates lie in memory one after another."""
    distance = exponential(planes[0], grid.distance_step)
    points = np.empty((3, *distance.shape), dtype=np.float32)
    ray_x, ray_y = (
        ray + plane * np.float32(grid.ray_step) if plane.any() else ray
        for ray, plane in zip(grid.rays(distance.shape), planes[1:], strict=True)
    )
    np.divide(distance, np.sqrt(1 + ray_x * ray_x + ray_y * ray_y), out=points[2])
    np.multiply(ray_x, points[2], out=points[0])
    np.multiply(ray_y, points[2], out=points[1])
    return np.moveaxis(points, 0, -1)


def beyond_bound(decoded: Array, points: Array, bound: float, camera: Array | float = 0.0) -> Array:
    """Where a decoded point is neither within `bound` times its distance from `camera`, nor the very same."""
    with np.errstate(all="ignore"):
        error, distance = (np.zeros(points.shape[:-1], dtype=np.float32) for _ in range(2))
        for axis, origin in enumerate(np.broadcast_to(camera, 3).astype(np.float32)):
            own = points[..., axis]
            error += np.square(decoded[..., axis] - own)
            distance += np.square(own - origin)
        beyond: Array = ~(error <= np.float32(bound) ** 2 * distance)
    if beyond.any():
        beyond[beyond] = ~same_numbers(decoded[beyond], points[beyond]).all(axis=-1)
    return beyond


def exponential(plane: Plane, step: float) -> Array:
    """exp(step * n), float32. A table serves all pixels: that is quicker than so many exponentials."""
    low, high = (int(plane.min()), int(plane.max())) if plane.size else (0, 0)
    if high - low >= 1 << 16:
        return np.asarray(np.exp(plane * step).astype(np.float32))
    table = np.exp(np.arange(low, high + 1) * step).astype(np.float32)
    return np.asarray(table.take(plane - low))


def quantise(values: Array, step: float, escaped: Array) -> Plane:
    """The nearest whole multiple of `step`; where escaped, whatever packs well."""
    return np.rint(fill_escaped(values, escaped) * np.float32(1 / step)).astype(np.int32)


def _fit_grid(ray_x: Array, ray_y: Array, usable: Array, bound: float) -> RayGrid:
    """The pinhole (with skew and roll) nearest to the rays, and steps that fit how far the rays stray from it."""
    height, width = usable.shape
    chosen = np.flatnonzero(usable)
    chosen = chosen[:: max(1, len(chosen) // FIT_POINTS)]
    row, column = np.divmod(chosen, width)
    design = np.stack([np.ones(len(chosen)), column, row], axis=1)
    values = np.stack([ray.reshape(-1)[chosen] for ray in (ray_x, ray_y)], axis=1).astype(np.float64)
    fit = np.linalg.lstsq(design, values, rcond=None)[0].astype(np.float32)
    grid = RayGrid(x=tuple(fit[:, 0].tolist()), y=tuple(fit[:, 1].tolist()), distance_step=1.0, ray_step=1.0)
    roughness = [
        _roughness(ray[:: max(1, height // 32)] - pinhole[:: max(1, height // 32)], usable[:: max(1, height // 32)])
        for ray, pinhole in zip((ray_x, ray_y), grid.rays(usable.shape), strict=True)
    ]
    bound = SAFETY * bound

    def bits(share: float) -> float:
        along = -np.log2(1 - 2 * share**2) / 2
        return float(along + sum(np.log2(1 + 3.8 * rough / (2 * share * bound)) for rough in roughness))

    share = min(SHARES, key=bits)
    return replace(
        grid,
        distance_step=2 * float(np.log1p(bound * np.sqrt(1 - 2 * share**2))),
        ray_step=2 * share * bound,
    )


def _roughness(stray: Array, usable: Array) -> float:
    """Mean step between neighbours of a row; for noise about 1.13 deviations."""
    both = usable[:, 1:] & usable[:, :-1]
    steps = np.abs(np.diff(stray, axis=1))[both]
    return float(steps.mean()) if steps.size else 0.0
