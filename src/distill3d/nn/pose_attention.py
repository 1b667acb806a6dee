"""Attention that knows where the cameras stand: projective position encoding (PRoPE, Li et al., 2025), as in Pi3X."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from distill3d.geometry.poses import invert_pose
from distill3d.nn.block import Block
from distill3d.nn.rope import Rotary, grid_positions, rotary_table, rotate


class CameraFrames(NamedTuple):
    """What tells the patches of a scene where they are seen from; made once and shared by all blocks."""

    camera_from_world: Float[Tensor, "batch views 4 4"]
    world_from_camera: Float[Tensor, "batch views 4 4"]
    rotary: Rotary
    """By column and row, for half a head and for the patches of all views; turns the other way round than usual."""
    known: Bool[Tensor, "batch views"]
    """Views whose pose is known; the others neither speak nor listen."""


def camera_frames(
    world_from_camera: Float[Tensor, "batch views 4 4"],
    known: Bool[Tensor, "batch views"],
    grid: tuple[int, int],
    head_dim: int,
) -> CameraFrames:
    """Set up the encoding for views of `grid` = (rows, columns) patches and heads of this width, a multiple of 8."""
    places = grid_positions(*grid, world_from_camera.device).flip(-1)  # (x, y): the column comes first
    turn = rotary_table(places.repeat(1, world_from_camera.shape[1], 1), head_dim // 2)
    pose = world_from_camera.float()
    return CameraFrames(invert_pose(pose), pose, turn._replace(sin=-turn.sin), known)


def inject_poses(
    block: Block, tokens: Float[Tensor, "batch tokens dim"], frames: CameraFrames
) -> Float[Tensor, "batch tokens dim"]:
    """Add to the patches of posed views what the layers of a block make of them; both branches see the same tokens.

    The tokens are the patches of all views of a scene, view by view.
    """
    views = frames.known.shape[1]
    query, key, value = block.attn.split(block.norm1(tokens))
    into = frames.world_from_camera
    query = _move(query, frames.camera_from_world.transpose(-1, -2), frames.rotary)
    key, value = _move(key, into, frames.rotary), _move(value, into, frames.rotary)
    known = frames.known.repeat_interleave(tokens.shape[1] // views, dim=1)
    # A scene without poses is left as it is below; until then it needs something to look at, or it would give NaN.
    heard = known | ~known.any(dim=1, keepdim=True)
    mask = None if bool(frames.known.all()) else heard[:, None, None]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=block.attn.scale)
    back = frames.rotary._replace(sin=-frames.rotary.sin)
    mixed = _move(mixed, frames.camera_from_world, back)
    change = block.ls1(block.attn.merge(mixed)) + block.ls2(block.mlp(block.norm2(tokens)))
    return torch.where(known[..., None], tokens + change, tokens)


def _move(
    vectors: Float[Tensor, "batch heads tokens head_dim"], matrices: Float[Tensor, "batch views 4 4"], rotary: Rotary
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Multiply the first half of each head, as 4-vectors, by its view's matrix and turn the second half."""
    batch, heads, tokens, width = vectors.shape
    views, half = matrices.shape[1], width // 2
    # (batch, heads, views, patches, number of 4-vectors, 4)
    quads = vectors[..., :half].float().reshape(batch, heads, views, tokens // views, half // 4, 4)
    moved = torch.einsum("bvij,bhvpnj->bhvpni", matrices, quads).flatten(-2).flatten(2, 3)
    return torch.cat([moved.to(vectors.dtype), rotate(vectors[..., half:], rotary)], dim=-1)
