"""What goes into CUT3R besides photos: ray maps, tokens for what is absent, and where state tokens stand."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from distill3d.geometry.cameras import camera_rays
from distill3d.geometry.poses import relative_pose, transform_points
from distill3d.nn.croco_vit import CrocoEncoder


def ray_map(
    intrinsics: Float[Tensor, "*batch 3 3"],
    world_from_camera: Float[Tensor, "*batch 4 4"],
    world_from_first: Float[Tensor, "*batch 4 4"],
    height: int,
    width: int,
) -> Float[Tensor, "*batch height width 6"]:
    """Origin and unit direction of every pixel's ray in the frame of the first camera, as CUT3R was trained with.

    The direction is that of the point at z = 1, translation included: a quirk of the reference that its weights know.
    """
    first_from_camera = relative_pose(world_from_first, world_from_camera)
    points = transform_points(first_from_camera, camera_rays(intrinsics, height, width))
    origins = first_from_camera[..., None, None, :3, 3].expand_as(points)
    return torch.cat([origins, nn.functional.normalize(points, dim=-1)], dim=-1)


def state_positions(size: int, kind: str, device: torch.device | None = None) -> Int[Tensor, "1 slots 2"]:
    """Where state tokens stand: "2d" on a grid of even width, "1d" at (i, i), "none" all at (0, 0)."""
    index = torch.arange(size, device=device)
    if kind == "1d":
        return torch.stack([index, index], dim=-1)[None]
    if kind == "none":
        return index.new_zeros(1, size, 2)
    width = math.isqrt(size)
    width += width % 2
    return torch.stack([index // width, index % width], dim=-1)[None]


def encode_present(
    encoder: CrocoEncoder,
    maps: Float[Tensor, "batch views channels height width"],
    present: Bool[Tensor, "batch views"] | None,
    absent: Float[Tensor, "1 dim"],
    grid: tuple[int, int],
) -> Float[Tensor, "batch views patches dim"]:
    """Tokens of the maps that are there (None: all of them), and `absent` at every place of the others."""
    shape = maps.shape[:2]
    if present is None:
        tokens: Tensor = encoder(maps.flatten(0, 1)).tokens
    else:
        flags = present.flatten()
        tokens = absent.expand(len(flags), grid[0] * grid[1], -1)
        if bool(flags.any()):
            # Select before encoding: what is absent may be NaN.
            found = encoder(maps.flatten(0, 1)[flags]).tokens
            tokens = tokens.to(found.dtype).index_copy(0, flags.nonzero()[:, 0], found)
    return tokens.view(*shape, *tokens.shape[1:])
