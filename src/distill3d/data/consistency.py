"""Whether depth and cameras of two frames agree, and which classic mistake would explain it if they do not.

Points of one frame are moved into another; where they land, its depth should be what was moved there. A mistake in
reading a data set (a wrong unit, the inverse pose, other axes) breaks that, and undoing the right mistake mends it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64

from distill3d.data.rows import Distortion
from distill3d.geometry import lenses

TOLERANCE = 0.05
"""Relative difference in depth up to which two frames agree."""


@dataclass(frozen=True, eq=False)
class PosedDepth:
    """What is compared: the depth of a frame, and its camera in pixels of that very map."""

    depth: Float[np.ndarray, "height width"]
    intrinsics: Float[np.ndarray, "3 3"]
    world_from_camera: Float[np.ndarray, "4 4"]
    distortion: Distortion | None = None
    along_ray: int = 0
    """The depth meant at a pixel is the stored one times this power of the length of its ray (z = 1): computed where it
    is asked for, because undoing a lens takes long for a whole map."""

    def depth_at(
        self, columns: Int64[np.ndarray, " points"], rows: Int64[np.ndarray, " points"]
    ) -> Float[np.ndarray, " points"]:
        """The depth meant at some pixels, 0 where unknown."""
        found: np.ndarray = self.depth[rows, columns].astype(np.float64)
        if self.along_ray:
            pixels = np.stack([columns, rows], axis=-1).astype(np.float64)
            found *= np.linalg.norm(_rays(self, pixels), axis=-1) ** self.along_ray
        return found


class Agreement(NamedTuple):
    """How pairs of frames agree."""

    known: int
    """Points that were moved."""
    seen: int
    """Those that landed where the other frame has depth."""
    consistent: int
    """Those whose depth is that of the other frame, to `TOLERANCE`."""
    error: float
    """Median relative difference of the consistent ones; NaN without any."""

    @property
    def share(self) -> float:
        """Share of consistent points among those that could be compared; NaN without any."""
        return self.consistent / self.seen if self.seen else float("nan")


Remedy = Callable[[PosedDepth], PosedDepth]


def _scaled(factor: float) -> Remedy:
    return lambda frame: replace(frame, depth=frame.depth * factor)


def _axes(frame: PosedDepth) -> PosedDepth:
    return replace(frame, world_from_camera=frame.world_from_camera @ np.diag([1.0, -1.0, -1.0, 1.0]))


def _inverse(frame: PosedDepth) -> PosedDepth:
    return replace(frame, world_from_camera=np.linalg.inv(frame.world_from_camera))


def _shifted(step: float) -> Remedy:
    def remedy(frame: PosedDepth) -> PosedDepth:
        intrinsics = frame.intrinsics.copy()
        intrinsics[:2, 2] += step
        return replace(frame, intrinsics=intrinsics)

    return remedy


def _swapped_centre(frame: PosedDepth) -> PosedDepth:
    intrinsics = frame.intrinsics.copy()
    intrinsics[:2, 2] = intrinsics[1::-1, 2]
    return replace(frame, intrinsics=intrinsics)


def _along_rays(power: int) -> Remedy:
    return lambda frame: replace(frame, along_ray=power)


REMEDIES: dict[str, Remedy] = {
    "the depth is 1000 times too large for the poses: millimetres read as metres": _scaled(1e-3),
    "the depth is 100 times too large for the poses: centimetres read as metres": _scaled(1e-2),
    "the depth is 1000 times too small for the poses: poses in millimetres, or depth read as such": _scaled(1e3),
    "the poses are camera-from-world and were taken for world-from-camera": _inverse,
    "the cameras have the axes of OpenGL (y up, z backward) and were taken for OpenCV's": _axes,
    "the poses are camera-from-world, of cameras with the axes of OpenGL": lambda frame: _axes(_inverse(frame)),
    "the depth is the distance along the ray and was taken for z-depth": _along_rays(-1),
    "the depth is z-depth and was taken for the distance along the ray": _along_rays(1),
    "cx and cy of the principal point are swapped": _swapped_centre,
    "the principal point is half a pixel too large: it counts from the corner of the image": _shifted(-0.5),
    "the principal point is half a pixel too small: half a pixel was subtracted twice": _shifted(0.5),
}
"""The classic mistakes, each with what undoes it."""


def agreement(pairs: Sequence[tuple[PosedDepth, PosedDepth]], points: int = 3000) -> Agreement:
    """How the second frame of each pair agrees with the first, by at most so many points of each."""
    counts = np.zeros(3, dtype=np.int64)
    errors = []
    for first, second in pairs:
        known, difference = _differences(first, second, points)
        close = np.abs(difference) < TOLERANCE
        counts += (known, len(difference), close.sum())
        errors.append(np.abs(difference[close]))
    joined = np.concatenate(errors) if errors else np.zeros(0)
    known, seen, consistent = counts.tolist()
    return Agreement(known, seen, consistent, float(np.median(joined)) if len(joined) else float("nan"))


def diagnose(pairs: Sequence[tuple[PosedDepth, PosedDepth]]) -> tuple[Agreement, str | None]:
    """How pairs of one scene agree, and the mistake that explains best why they do not; `None` if none does.

    A mistake is named where undoing it makes many more points agree, or leaves half as many that disagree, or (half a
    pixel, distances in a narrow view) makes the same points agree at least twice as well. The latter
    takes depth as exact as that of rendered scenes or lasers.
    """
    found = agreement(pairs)
    undone = {words: agreement([(remedy(a), remedy(b)) for a, b in pairs]) for words, remedy in REMEDIES.items()}
    if not undone or found.known == 0:
        return found, None
    best = max(undone.values(), key=lambda mended: mended.consistent)
    many_more = best.consistent > 1.3 * found.consistent + 0.05 * found.known
    # Cameras that hardly move agree with depth in any unit but for the nearest points: there few must be left over.
    few_left = best.consistent > 1.02 * found.consistent and 1 - best.share < 0.5 * (1 - found.share)
    if many_more or few_left:
        # Of mistakes that mend about as many points the one that mends them best is meant.
        alike = {name: a for name, a in undone.items() if a.consistent > 0.97 * best.consistent}
        return found, min(alike, key=lambda name: alike[name].error)
    alike = {name: a for name, a in undone.items() if a.consistent > 0.9 * found.consistent > 0}
    if alike:
        words = min(alike, key=lambda name: alike[name].error)
        if alike[words].error < 0.5 * found.error and found.error > 1e-5:
            return found, words
    return found, None


def _differences(first: PosedDepth, second: PosedDepth, most: int) -> tuple[int, Float[np.ndarray, " seen"]]:
    """Number of points moved from `first` to `second`, and the relative difference of depth of those seen there."""
    rows, columns = np.nonzero(first.depth > 0)
    every = max(1, len(rows) // most)
    pixels = np.stack([columns[::every], rows[::every]], axis=-1).astype(np.float64)
    depth = first.depth_at(columns[::every], rows[::every])
    points = _rays(first, pixels) * depth[:, None]
    # Relative to the first camera: a scene may lie kilometres from its origin.
    second_from_first = np.linalg.inv(second.world_from_camera) @ first.world_from_camera
    points = points @ second_from_first[:3, :3].T + second_from_first[:3, 3]
    points = points[points[:, 2] > 1e-9]
    held = _depth_between(second, _project(second, points))
    seen = held > 0
    return len(pixels), points[seen, 2] / held[seen] - 1


def _rays(frame: PosedDepth, pixels: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "points 3"]:
    homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=-1)
    rays = homogeneous @ np.linalg.inv(frame.intrinsics).T
    if frame.distortion is not None:
        lens = frame.distortion
        rays[:, :2] = lenses.undistort(lens.model, lens.params, torch.from_numpy(rays[:, :2])).numpy()
    return np.asarray(rays)


def _project(frame: PosedDepth, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 2"]:
    flat = points[:, :2] / points[:, 2:]
    if frame.distortion is not None:
        flat = lenses.distort(frame.distortion.model, frame.distortion.params, torch.from_numpy(flat)).numpy()
    return np.asarray(flat @ frame.intrinsics[:2, :2].T + frame.intrinsics[:2, 2])


def _depth_between(frame: PosedDepth, pixels: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, " points"]:
    """Depth between pixels; 0 outside, beside unknown pixels, and across edges.

    Inverse depth is interpolated, because on planes it is linear in the pixels.
    """
    height, width = frame.depth.shape
    with np.errstate(invalid="ignore"):
        inside = (pixels >= 0).all(axis=-1) & (pixels[:, 0] <= width - 1) & (pixels[:, 1] <= height - 1)
    found = np.zeros(len(pixels))
    if min(height, width) < 2 or not inside.any():
        return found
    x, y = pixels[inside].T
    left, top = np.minimum(x.astype(np.int64), width - 2), np.minimum(y.astype(np.int64), height - 2)
    corners = np.stack([frame.depth_at(left + column, top + row) for row in (0, 1) for column in (0, 1)])
    smooth = (corners.min(axis=0) > 0) & (corners.max(axis=0) < 1.05 * corners.min(axis=0))
    right, low = x - left, y - top
    weights = np.stack([(1 - right) * (1 - low), right * (1 - low), (1 - right) * low, right * low])
    inverse = np.divide(weights, corners, out=np.zeros_like(weights), where=corners > 0).sum(axis=0)
    found[inside] = np.where(smooth, 1 / np.where(inverse > 0, inverse, 1), 0)
    return found
