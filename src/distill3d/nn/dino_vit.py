"""The vision transformer of DINOv2 and DUNE: class token, optional registers, learned positions, LayerScale."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from distill3d.nn.block import Block
from distill3d.nn.patch_embed import PatchEmbed

PositionResize = Literal["offset", "antialias"]
"""How a position table is resized: as in DUNE and DINOv2 without registers, or as in DINOv2 with registers."""


class ViTTokens(NamedTuple):
    """The tokens of one level, by what they stand for."""

    cls: Float[Tensor, "batch dim"]
    registers: Float[Tensor, "batch registers dim"]
    patches: Float[Tensor, "batch patches dim"]


def resize_positions(
    table: Float[Tensor, "1 entries dim"], grid: tuple[int, int], method: PositionResize
) -> Float[Tensor, "1 patches dim"]:
    """Resize a square position table (without its class entry) to a grid of (rows, columns), bicubically.

    "offset" samples at the positions given by the factors (rows + 0.1) / side, without antialiasing;
    "antialias" asks for the size and filters when it shrinks. A table of the right size is returned as it is.
    """
    side = math.isqrt(table.shape[1])
    if side * side != table.shape[1]:
        raise ValueError(f"a position table must be square, found {table.shape[1]} entries")
    if grid == (side, side):
        return table
    square = table.float().view(1, side, side, -1).permute(0, 3, 1, 2)
    if method == "offset":
        factors = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
        resized = F.interpolate(square, scale_factor=factors, mode="bicubic", align_corners=False, antialias=False)
    else:
        resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False, antialias=True)
    assert resized.shape[-2:] == grid
    return resized.flatten(2).transpose(1, 2).to(table.dtype)


class DinoViT(nn.Module):
    """A DINOv2-style encoder; token order is class, registers, patches (row by row)."""

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        num_heads: int,
        patch_size: int = 14,
        table_side: int = 37,
        num_registers: int = 4,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = 1e-4,
        position_resize: PositionResize = "antialias",
        mask_token: bool = False,
        in_channels: int = 3,
    ):
        """Set up the encoder.

        Args:
            dim: width of the tokens.
            depth: number of blocks.
            num_heads: attention heads per block.
            patch_size: side of a patch in pixels.
            table_side: side of the square position table, in patches.
            num_registers: register tokens, which carry no position; 0 for none.
            mlp_ratio: hidden width of the MLPs over `dim`.
            layer_scale: initial LayerScale; None for no LayerScale at all.
            position_resize: the recipe for grids other than the table's.
            mask_token: carry the token that only masked pre-training uses (it is never read and takes no gradient).
            in_channels: channels of the images (2 for depth and its mask).
        """
        super().__init__()
        self.patch_size = patch_size
        self.num_registers = num_registers
        self.position_resize: PositionResize = position_resize
        self.gradient_checkpointing = False
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + table_side**2, dim))
        if num_registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, num_registers, dim))
        if mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.patch_embed = PatchEmbed(patch_size, dim, in_channels=in_channels)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio=mlp_ratio, layer_scale=layer_scale) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def embed(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch tokens dim"]:
        """Tokens as they enter the first block. The images are normalised already."""
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"images are {height}x{width}, but both sides must be multiples of the patch size {self.patch_size}; "
                "resize or pad them (ImageFit does)"
            )
        grid = (height // self.patch_size, width // self.patch_size)
        positions = resize_positions(self.pos_embed[:, 1:], grid, self.position_resize)
        patches = self.patch_embed(images) + positions
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)
        if not self.num_registers:
            return torch.cat([cls.to(patches.dtype), patches], dim=1)
        registers = self.register_tokens.expand(len(images), -1, -1)
        return torch.cat([cls.to(patches.dtype), registers.to(patches.dtype), patches], dim=1)

    def forward(self, images: Float[Tensor, "batch channels height width"], *, normed: bool = True) -> ViTTokens:
        """The tokens after the last block, with or without the final LayerNorm."""
        return self.intermediate(images, [len(self.blocks) - 1], normed=normed)[0]

    def intermediate(
        self, images: Float[Tensor, "batch channels height width"], blocks: Sequence[int], *, normed: bool = True
    ) -> list[ViTTokens]:
        """The tokens after each of the listed blocks (counted from 0, in rising order)."""
        tokens = self.embed(images)
        levels: list[ViTTokens] = []
        for index, block in enumerate(self.blocks):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
            if index in blocks:
                levels.append(self._split(self.norm(tokens) if normed else tokens))
        return levels

    def _split(self, tokens: Float[Tensor, "batch tokens dim"]) -> ViTTokens:
        first = 1 + self.num_registers
        return ViTTokens(tokens[:, 0], tokens[:, 1:first], tokens[:, first:])
