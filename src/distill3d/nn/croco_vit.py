"""The vision transformer of CroCo v2: an encoder with rotary positions, a decoder block that reads a second stream."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distill3d.nn.attention import Attention, CrossAttention
from distill3d.nn.block import Block, Mlp
from distill3d.nn.patch_embed import PatchEmbed
from distill3d.nn.rope import Rotary, grid_positions, rotary_table


class CrocoTokens(NamedTuple):
    """Patch tokens and where they stand."""

    tokens: Float[Tensor, "batch patches dim"]
    positions: Int[Tensor, "batch patches 2"]
    """(y, x) in patches, of the image as it is seen upright."""


class CrocoEncoder(nn.Module):
    """Patches, pre-norm blocks with rotary positions, a final norm; no class token and no learned positions."""

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        num_heads: int,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        rope_base: float = 100.0,
        in_channels: int = 3,
        rotary_rounding: torch.dtype | None = None,
    ):
        """Set up the encoder.

        Args:
            dim: width of the tokens.
            depth: number of blocks.
            num_heads: attention heads per block.
            patch_size: side of a patch in pixels.
            mlp_ratio: hidden width of the MLPs over `dim`.
            rope_base: of the rotary positions.
            in_channels: channels of the images (6 for maps of rays).
            rotary_rounding: see `nn.rope.Rotary`.
        """
        super().__init__()
        self.patch_size = patch_size
        self.head_dim = dim // num_heads
        self.rope_base = rope_base
        self.rotary_rounding = rotary_rounding
        self.gradient_checkpointing = False
        self.patch_embed = PatchEmbed(patch_size, dim, in_channels=in_channels)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def embed(
        self, images: Float[Tensor, "batch channels height width"], portrait: Bool[Tensor, " batch"] | None = None
    ) -> CrocoTokens:
        """Tokens as they enter the first block. The images are normalised already.

        Args:
            images: both sides are multiples of the patch size.
            portrait: rows that hold a portrait image transposed, so that it shares a batch with landscape ones; they
                are seen upright. None for none.

        Raises:
            ValueError: sides that are no multiples.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"images are {height}x{width}, but both sides must be multiples of the patch size {self.patch_size}; "
                "resize or crop them"
            )
        rows, columns = height // self.patch_size, width // self.patch_size
        tokens = self.patch_embed(images)
        positions = grid_positions(rows, columns, images.device).expand(len(images), -1, -1)
        if portrait is not None:
            turn = portrait[:, None, None]
            tokens = torch.where(turn, self.patch_embed(images.transpose(-1, -2)), tokens)
            positions = torch.where(turn, grid_positions(columns, rows, images.device), positions)
        return CrocoTokens(tokens, positions)

    def forward(
        self, images: Float[Tensor, "batch channels height width"], portrait: Bool[Tensor, " batch"] | None = None
    ) -> CrocoTokens:
        """The tokens after the final norm; arguments as for `embed`."""
        tokens, positions = self.embed(images, portrait)
        # Without portrait rows all rows stand alike, and one row of angles serves them.
        distinct = positions[:1] if portrait is None else positions
        rotary = rotary_table(distinct, self.head_dim, base=self.rope_base, rounding=self.rotary_rounding)
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, rotary, use_reentrant=False)
            else:
                tokens = block(tokens, rotary)
        return CrocoTokens(self.norm(tokens), positions)


class DecoderBlock(nn.Module):
    """Self-attention, attention to the memory, MLP; each on a norm of its own, and one for the memory."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
        self_attention: bool = True,
    ):
        """Set up the block for a stream and a memory of width `dim`; a stream of one token needs no self-attention."""
        super().__init__()
        self.self_attention = self_attention
        if self_attention:
            self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
            self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.norm_y = nn.LayerNorm(dim, eps=norm_eps)
        self.cross_attn = CrossAttention(dim, num_heads)
        self.norm3 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens dim"],
        memory: Float[Tensor, "batch memory dim"],
        rotary: Rotary | None = None,
        memory_rotary: Rotary | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """The stream after one look at the memory, which stays as it is."""
        if self.self_attention:
            tokens = tokens + self.attn(self.norm1(tokens), rotary)
        tokens = tokens + self.cross_attn(self.norm2(tokens), self.norm_y(memory), rotary, memory_rotary)
        out: Tensor = tokens + self.mlp(self.norm3(tokens))
        return out
