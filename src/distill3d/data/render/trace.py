"""Nearest hits and shadows of batches of scenes, in plain torch.

Rays travel in tiles of neighbouring pixels. For each tile a list of primitives is made that its frustum touches; then
the lists are walked in step: the k-th primitive of every tile that has one. So work is proportional to what is seen,
no step depends on the device, and memory is bounded by the number of rays in flight.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distill3d.data.render.cull import RayTiles, frustum_planes, touched
from distill3d.data.render.primitives import INTERVALS
from distill3d.data.render.scene import Scene, per_item


@dataclass(frozen=True)
class Hits:
    """The nearest hit of every ray."""

    t: Float[Tensor, "tiles rays"]
    """Ray parameter, infinite where nothing is hit; the planar depth for camera rays."""
    primitive: Int[Tensor, "tiles rays"]
    """Number in the flattened (scene, primitive) table, 0 where nothing is hit."""


def nearest_hits(scene: Scene, tiles: RayTiles, *, rays_in_flight: int) -> Hits:
    """The first surface that each ray meets at t > 0; a ray that starts inside a primitive does not see it."""
    t = torch.full_like(tiles.direction[:, 0], torch.inf)
    primitive = torch.zeros_like(t, dtype=torch.int64)
    for part in _parts(tiles, rays_in_flight):
        piece, nearest, owner = tiles[part], t[part], primitive[part]
        for order, steps in _walk(scene, piece, reach=torch.inf):
            best, found = nearest[order], owner[order]
            for count, numbers, near, far in steps:
                better = (near <= far) & (near > 0) & (near < best[:count])
                best[:count] = torch.where(better, near, best[:count])
                found[:count] = torch.where(better, numbers[:, None], found[:count])
            nearest[order], owner[order] = best, found
    return Hits(t, primitive)


def blocked(
    scene: Scene, tiles: RayTiles, margin: Float[Tensor, "tiles rays"], *, rays_in_flight: int
) -> Bool[Tensor, "tiles rays"]:
    """Whether anything stands between the origin (a light) and t = 1 - margin (the lit point)."""
    dark = torch.zeros_like(tiles.direction[:, 0], dtype=torch.bool)
    for part in _parts(tiles, rays_in_flight):
        piece, shadow, limit = tiles[part], dark[part], 1 - margin[part]
        for order, steps in _walk(scene, piece, reach=1.0):
            hidden, end = shadow[order], limit[order]
            for count, _, near, far in steps:
                hidden[:count] |= (near <= far) & (near > 0) & (near < end[:count])
            shadow[order] = hidden
    return dark


def _parts(tiles: RayTiles, rays_in_flight: int) -> Iterator[slice]:
    step = max(1, rays_in_flight // tiles.direction.shape[2])
    for start in range(0, len(tiles.direction), step):
        yield slice(start, start + step)


Step = tuple[int, Tensor, Tensor, Tensor]


def _walk(scene: Scene, tiles: RayTiles, reach: float) -> Iterator[tuple[Tensor, Iterator[Step]]]:
    """For each shape: tiles in an order of falling list length, and their intersections step by step.

    A step gives (count, primitive of each of the first `count` tiles, near, far).
    """
    candidate = touched(frustum_planes(tiles, reach), tiles.scene, scene.world_from_local)
    kind = per_item(scene.kind, tiles.scene)
    table = scene.local_from_world.flatten(0, 1)
    first = tiles.scene * scene.kind.shape[1]
    for shape in INTERVALS:
        mine = candidate & (kind == shape)
        lengths = mine.sum(dim=1)
        # Tiles with long lists first, so that step k concerns a prefix; a stable sort keeps results reproducible.
        order = lengths.argsort(descending=True, stable=True)
        longest = int(lengths[order[0]])
        if not longest:
            continue
        step = torch.arange(longest, device=lengths.device)
        counts = (lengths[:, None] > step).sum(dim=0).tolist()
        order = order[: counts[0]]
        # `nonzero` goes tile by tile, so the list of a tile is a run of it; what lies past a run's end is never used.
        members = mine.nonzero()[:, 1]
        starts = (lengths.cumsum(0) - lengths)[order]
        lists = members[(starts[:, None] + step).clamp_(max=len(members) - 1)] + first[order, None]
        yield order, _steps(shape, table, tiles.origin[order], tiles.direction[order], lists, counts)


def _steps(
    shape: int, table: Tensor, origin: Tensor, direction: Tensor, lists: Tensor, counts: list[int]
) -> Iterator[Step]:
    interval = INTERVALS[shape]
    for step, count in enumerate(counts):
        numbers = lists[:count, step]
        local_from_world = table[numbers]
        rotate = local_from_world[:, :, :3]
        local_origin = (rotate @ origin[:count, :, None])[:, :, 0] + local_from_world[:, :, 3]
        near, far = interval(local_origin, torch.bmm(rotate, direction[:count]))
        yield count, numbers, near, far
