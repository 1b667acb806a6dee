"""Where to stand and where to look: scattered photos and smooth walks through a scene."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from distill3d.data.render.caster import cast_depth
from distill3d.data.render.scene import Scene, Vector
from distill3d.errors import GeometryError
from distill3d.geometry.poses import look_at

EYE_HEIGHT_M = (1.2, 1.7)
TARGET_HEIGHT_M = (0.35, 1.6)
_CLEARANCE_M = 0.3
_NEAREST_M = 0.5
_MEDIAN_M = 1.35
_PROBE = (14, 14)
_MAX_ROUNDS = 200


def look_poses(eye: Float[Tensor, "*batch 3"], target: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4 4"]:
    """`world_from_camera` of upright cameras in a world with z up."""
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(eye.shape)
    return look_at(eye.double(), target.double(), up).float()


def pinholes(fov_deg: Float[Tensor, "*batch"], size: tuple[int, int]) -> Float[Tensor, "*batch 3 3"]:
    """Intrinsics of square pixels whose wider side spans `fov_deg`, with the principal point in the middle."""
    height, width = size
    focal = max(size) / 2 / torch.tan(torch.deg2rad(fov_deg) / 2)
    intrinsics = torch.zeros(*fov_deg.shape, 3, 3)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = focal
    intrinsics[..., 0, 2], intrinsics[..., 1, 2], intrinsics[..., 2, 2] = (width - 1) / 2, (height - 1) / 2, 1.0
    return intrinsics


def random_pinholes(count: int, size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "count 3 3"]:
    """Lenses of 62 degrees, give or take four."""
    return pinholes(62 + 8 * (torch.rand(count, generator=generator) - 0.5), size)


def clearance(scene: Scene, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
    """Distance in metres from the bounding box of the nearest primitive (of a batch of one scene); 0 inside."""
    local = (
        torch.einsum("nij,pj->pni", scene.local_from_world[0, :, :, :3], points) + scene.local_from_world[0, :, :, 3]
    )
    half = scene.world_from_local[0, :, :, :3].square().sum(dim=1).sqrt()
    distance = ((local.abs() - 1).clamp(min=0) * half).square().sum(dim=2).sqrt()
    return distance.masked_fill(scene.kind[0] == 0, torch.inf).amin(dim=1)


def good_views(scene: Scene, eye: Float[Tensor, "views 3"], target: Float[Tensor, "views 3"]) -> Bool[Tensor, " views"]:
    """Cameras in free air that see something at a sensible distance."""
    intrinsics = pinholes(torch.full((len(eye),), 62.0), _PROBE)
    depth = cast_depth(scene, look_poses(eye, target)[None], intrinsics[None], _PROBE)[0].flatten(1)
    far = torch.where(depth > 0, depth, 20.0)
    sensible = (far.amin(dim=1) > _NEAREST_M) & (far.median(dim=1).values > _MEDIAN_M)
    return sensible & (clearance(scene, eye) > _CLEARANCE_M)


def scattered(
    scene: Scene, low: Vector, high: Vector, count: int, generator: torch.Generator, *, focus: Vector | None = None
) -> tuple[Float[Tensor, "count 3"], Float[Tensor, "count 3"]]:
    """Eyes and targets of photos taken here and there in a box of air.

    With a `focus` the targets gather within about a metre of it, so that the views overlap.

    Raises:
        GeometryError: the box is too full to stand in.
    """
    eyes, targets, found = [], [], 0
    for _ in range(_MAX_ROUNDS):
        draws = max(32, 2 * (count - found))
        eye = _uniform(low, high, EYE_HEIGHT_M, draws, generator)
        target = _uniform(low, high, TARGET_HEIGHT_M, draws, generator)
        if focus is not None:
            target[:, :2] = torch.tensor(focus[:2]) + 0.7 * torch.randn(draws, 2, generator=generator)
        apart = (target - eye)[:, :2].norm(dim=1) > 1.5
        eye, target = eye[apart], target[apart]
        if len(eye):
            good = good_views(scene, eye, target)
            eyes.append(eye[good])
            targets.append(target[good])
            found += int(good.sum())
        if found >= count:
            return torch.cat(eyes)[:count], torch.cat(targets)[:count]
    raise GeometryError(
        f"found {found} places to stand, needed {count}, after {_MAX_ROUNDS} rounds; the room between {low} and {high} "
        "is too full, try a larger room or fewer pieces of furniture"
    )


def around(
    scene: Scene, low: Vector, high: Vector, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "count 3"], Float[Tensor, "count 3"]]:
    """Eyes and targets of somebody who photographs one corner from all sides, going around it once.

    Neighbours in the order see much the same things, from places a step or two apart.

    Raises:
        GeometryError: the box is too full to stand in.
    """
    margin = torch.tensor([0.8, 0.8, 0.0])
    lowest, highest = torch.tensor(low) + margin, torch.tensor(high) - margin
    x, y, z = (lowest + (highest - lowest) * torch.rand(3, generator=generator)).tolist()
    eye, target = scattered(scene, low, high, count, generator, focus=(x, y, z))
    order = torch.atan2(eye[:, 1] - y, eye[:, 0] - x).argsort()
    return eye[order], target[order]


def walk(
    scene: Scene, low: Vector, high: Vector, frames: int, generator: torch.Generator, *, step_m: float = 0.09
) -> tuple[Float[Tensor, "frames 3"], Float[Tensor, "frames 3"]]:
    """Eyes and targets of a film taken while walking slowly, in time order.

    Raises:
        GeometryError: no walk of that length fits into the box.
    """
    length = frames * step_m
    for _ in range(_MAX_ROUNDS):
        stops = max(2, math.ceil(length / 1.2) + 1)
        eye, target = scattered(scene, low, high, stops, generator)
        # Far denser than the frames, so that equal steps along the path come out equal.
        eye, target = _smooth(eye, frames * 40), _smooth(target, frames * 40)
        # Take the stretch that begins at the first stop and has the wanted length, at equal steps.
        travelled = functional.pad((eye[1:] - eye[:-1]).norm(dim=1).cumsum(0), (1, 0))
        if travelled[-1] < length:
            continue
        index = torch.searchsorted(travelled, torch.arange(frames) * step_m).clamp(max=len(eye) - 1)
        eye, target = eye[index], target[index]
        far_enough = ((target - eye)[:, :2].norm(dim=1) > 0.9).all()
        if far_enough and good_views(scene, eye, target).all():
            return eye, target
    raise GeometryError(
        f"no walk of {frames} frames at {step_m} m fits between {low} and {high} after {_MAX_ROUNDS} rounds; "
        "try fewer frames or a smaller step"
    )


def _uniform(low: Vector, high: Vector, heights: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    lowest = torch.tensor([low[0], low[1], heights[0]])
    highest = torch.tensor([high[0], high[1], heights[1]])
    return lowest + (highest - lowest) * torch.rand(count, 3, generator=generator)


def _smooth(stops: Float[Tensor, "stops 3"], count: int) -> Float[Tensor, "count 3"]:
    """A uniform Catmull-Rom spline through the stops."""
    padded = torch.cat([2 * stops[:1] - stops[1:2], stops, 2 * stops[-1:] - stops[-2:-1]])
    time = torch.linspace(0, len(stops) - 1, count)
    first = time.long().clamp(max=len(stops) - 2)
    s = (time - first)[:, None]
    p0, p1, p2, p3 = (padded[first + offset] for offset in range(4))
    return 0.5 * (2 * p1 + (p2 - p0) * s + (2 * p0 - 5 * p1 + 4 * p2 - p3) * s**2 + (3 * p1 - p0 - 3 * p2 + p3) * s**3)
