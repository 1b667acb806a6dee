"""Fusion of many views in one transformer, with a view id that tells the reference view from the others (Fast3R)."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distill3d.nn.block import Block

FusionAttention = Literal["global", "alternating"]
"""Every block over all tokens of a scene, or blocks over a scene and over a view in turn."""


def view_id_table(num_ids: int, dim: int) -> Float[Tensor, "ids dim"]:
    """Fixed sine-cosine rows: row k holds sin(k w_j), then cos(k w_j), with w_j = 10000^(-j / (dim / 2))."""
    frequencies = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    angles = torch.arange(num_ids, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def sequential_view_ids(batch: int, views: int) -> Int[Tensor, "batch views"]:
    """Ids 0, 1, 2, ... in every scene."""
    return torch.arange(views).expand(batch, -1)


def random_view_ids(batch: int, views: int, num_ids: int, generator: torch.Generator) -> Int[Tensor, "batch views"]:
    """Id 0 for view 0, and distinct random ids from 1 .. num_ids - 1 for the others of each scene."""
    device = generator.device
    rows = [torch.randperm(num_ids - 1, generator=generator, device=device)[: views - 1] + 1 for _ in range(batch)]
    return torch.cat([torch.zeros(batch, 1, dtype=torch.long, device=device), torch.stack(rows)], dim=1)


class Fusion(nn.Module):
    """Joint self-attention over the patch tokens of all views."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        attention: FusionAttention = "global",
        attention_scale: float | None = None,
    ):
        """Set up the fusion.

        Args:
            in_dim: width of the encoder's tokens.
            dim: width inside.
            depth: number of blocks.
            num_heads: attention heads per block.
            mlp_ratio: hidden width of the MLPs over `dim`.
            attention: "global" (Fast3R) or "alternating" (even blocks over the scene, odd blocks over each view).
            attention_scale: factor on the logits; None for `head_dim ** -0.5`.
        """
        super().__init__()
        self.attention: FusionAttention = attention
        self.gradient_checkpointing = False
        self.embed = nn.Linear(in_dim, dim)
        # eps 1e-5 here and 1e-6 in the last norm, as in Fast3R.
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio=mlp_ratio, norm_eps=1e-5, attention_scale=attention_scale)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(
        self,
        tokens: Float[Tensor, "batch views patches in_dim"],
        view_embedding: Float[Tensor, "batch views dim"],
    ) -> list[Float[Tensor, "batch views patches _"]]:
        """All levels: the tokens as they came, then those after each block, the last one normed."""
        views = tokens.shape[1]
        levels = [tokens]
        running = self.embed(tokens) + view_embedding[:, :, None]
        for index, block in enumerate(self.blocks):
            over_views = self.attention == "alternating" and index % 2 == 1
            flat = running.flatten(0, 1) if over_views else running.flatten(1, 2)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                flat = checkpoint(block, flat, use_reentrant=False)
            else:
                flat = block(flat)
            running = flat.unflatten(0, (-1, views)) if over_views else flat.unflatten(1, (views, -1))
            levels.append(running)
        levels[-1] = self.norm(running)
        return levels
