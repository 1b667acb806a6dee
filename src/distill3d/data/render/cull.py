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

    def __getitem__(self, index: slice) -> "RayTiles":
        alive = None if self.alive is None else self.alive[index]
        return RayTiles(self.scene[index], self.origin[index], self.direction[index], alive)


def frustum_planes(tiles: RayTiles, reach: float) -> Float[Tensor, "tiles 6 4"]:
    """Half-spaces n.x + d >= 0 that hold every living ray for t in [0, reach]; empty tiles get an impossible one.

    The frustum has its apex in the origin and opens around the tile's mean direction.
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
            forward,
            -forward,
        ],
        dim=1,
    )
    # A bundle that opens wider than about 87 degrees to a side is not a frustum: keep everything for it.
    normals = torch.where(narrow[:, None, None], normals, 0.0)
    offset = -(normals * tiles.origin[:, None]).sum(dim=2) + 1e-4
    offset[:, 5] += torch.where(narrow & torch.isfinite(farthest), farthest, 1e9)
    offset = torch.where(alive.any(dim=1)[:, None], offset, -torch.inf)
    return torch.cat([normals, offset[:, :, None]], dim=2)


def _bounds(values: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.where(alive, values, torch.inf).amin(dim=1)
    high = torch.where(alive, values, -torch.inf).amax(dim=1)
    return low.clamp(-1e4, 1e4) - 1e-4, high.clamp(-1e4, 1e4) + 1e-4


def touched(
    planes: Float[Tensor, "tiles 6 4"],
    centre: Float[Tensor, "tiles prims 3"],
    half_axes: Float[Tensor, "tiles prims 3 3"],
) -> Bool[Tensor, "tiles prims"]:
    """False where a primitive's oriented box lies wholly behind one of the planes (conservative)."""
    normals, offset = planes[:, :, :3], planes[:, :, 3]
    distance = normals @ centre.transpose(1, 2) + offset[:, :, None]  # (tiles, planes, prims)
    tiles, prims = centre.shape[:2]
    axes = half_axes.permute(0, 2, 3, 1).reshape(tiles, 3, 3 * prims)
    reach = (normals @ axes).abs_().view(tiles, 6, 3, prims).sum(dim=2)
    return (distance + reach >= 0).all(dim=1)
