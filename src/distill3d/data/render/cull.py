"""Which primitives can a bundle of rays meet? Rays are cast in tiles; a tile tests only what its frustum touches."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class RayTiles:
    """Bundles of rays `origin + t * direction`, one origin a bundle, all of the bundle in one scene."""

    scene: Int[Tensor, " tiles"]
    origin: Float[Tensor, "tiles 3"]
    direction: Float[Tensor, "tiles 3 rays"]
    alive: Bool[Tensor, "tiles rays"] | None = None
    """Rays that matter; `None` means all."""

    def __getitem__(self, index: slice | Int[Tensor, " chosen"]) -> "RayTiles":
        """Some of the tiles."""
        alive = None if self.alive is None else self.alive[index]
        return RayTiles(self.scene[index], self.origin[index], self.direction[index], alive)


def frustum_planes(tiles: RayTiles, reach: float) -> Float[Tensor, "tiles 5 4"]:
    """Half-spaces n.x + d >= 0 that hold every living ray for t in [0, reach]; empty tiles get an impossible one.

    The frustum has its apex in the origin and opens around the tile's mean direction, so that its four sides also
    shut out what lies behind; the fifth plane is the far end.
    """
    direction = tiles.direction
    alive = torch.ones_like(direction[:, 0], dtype=torch.bool) if tiles.alive is None else tiles.alive
    weight = alive[:, None].to(direction.dtype)
    forward = torch.nn.functional.normalize((direction * weight).sum(dim=2), dim=1)
    # Any axis that is not parallel to the forward one serves to span the frustum.
    seed = torch.zeros_like(forward).scatter_(1, forward.abs().argmin(dim=1, keepdim=True), 1.0)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, seed), dim=1)
    down = torch.linalg.cross(forward, right)
    basis = torch.stack([right, down, forward], dim=1)
    x, y, z = (basis @ direction).unbind(dim=1)
    in_front = z > 0.05 * direction.square().sum(dim=1).sqrt()
    narrow = (in_front | ~alive).all(dim=1)
    safe = torch.where(in_front, z, 1.0)
    low_x, high_x = _bounds(x / safe, alive)
    low_y, high_y = _bounds(y / safe, alive)
    farthest = torch.where(alive, z, 0.0).amax(dim=1) * reach
    normals = torch.stack(
        [
            right - low_x[:, None] * forward,
            high_x[:, None] * forward - right,
            down - low_y[:, None] * forward,
            high_y[:, None] * forward - down,
            -forward,
        ],
        dim=1,
    )
    # A bundle that opens wider than about 87 degrees to a side is not a frustum: keep everything for it.
    normals = torch.where(narrow[:, None, None], normals, 0.0)
    offset = -(normals * tiles.origin[:, None]).sum(dim=2) + 1e-4
    offset[:, 4] += torch.where(narrow & torch.isfinite(farthest), farthest, 1e9)
    offset = torch.where(alive.any(dim=1)[:, None], offset, -torch.inf)
    return torch.cat([normals, offset[:, :, None]], dim=2)


def _bounds(values: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.where(alive, values, torch.inf).amin(dim=1)
    high = torch.where(alive, values, -torch.inf).amax(dim=1)
    return low.clamp(-1e4, 1e4) - 1e-4, high.clamp(-1e4, 1e4) + 1e-4


def touched(
    planes: Float[Tensor, "tiles 5 4"],
    scene_of_tile: Int[Tensor, " tiles"],
    world_from_local: Float[Tensor, "scenes prims 3 4"],
) -> Bool[Tensor, "tiles prims"]:
    """False where the oriented box around a primitive lies wholly behind one of the planes (conservative)."""
    scenes, prims = world_from_local.shape[:2]
    # Columns: the three half axes (directions) and the centre (a point) of every primitive.
    columns = torch.cat([world_from_local, world_from_local.new_tensor([0, 0, 0, 1.0]).expand(scenes, prims, 1, 4)], 2)
    columns = columns.permute(0, 2, 3, 1).reshape(scenes, 4, 4 * prims)
    # One scene is one matrix product; several must be looked up tile by tile.
    product = planes @ (columns[0] if scenes == 1 else columns[scene_of_tile])
    first, second, third, centre = product.view(-1, 5, 4, prims).unbind(dim=2)
    reach = first.abs_().add_(second.abs_()).add_(third.abs_())
    return reach.add_(centre).amin(dim=1) >= 0
