"""Fusion of many views in one transformer, with a view id that tells the reference view from the others (Fast3R)."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distill3d.errors import ConfigError
from distill3d.nn.attention import Attention
from distill3d.nn.block import Block

FusionAttention = Literal["global", "alternating"]
"""Every block over all tokens of a scene, or blocks over a scene and over a view in turn."""
INFERENCE_SEED = 0
"""Draws the view ids, and the fresh weights of networks, where no generator is given, so that results repeat."""


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


def seeded_view_ids(batch: int, views: int, num_ids: int, generator: torch.Generator) -> Int[Tensor, "batch views"]:
    """`random_view_ids` as Fast3R draws them: one integer below 2^32 from `generator` seeds a fresh generator."""
    seed = torch.randint(0, 2**32, (1,), generator=generator, device=generator.device)
    return random_view_ids(batch, views, num_ids, torch.Generator().manual_seed(int(seed)))


class ViewIdEmbedding(nn.Module):
    """One fixed row of `view_id_table` per view: named by the caller, counted, or drawn. It has no weights."""

    table: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_ids: int = 1000,
        policy: Literal["random", "sequential"] = "random",
        draw: Callable[[int, int, int, torch.Generator], Tensor] = random_view_ids,
    ):
        """Set up the table of `num_ids` rows; `draw` makes the ids of the policy "random"."""
        super().__init__()
        self.policy = policy
        self.draw = draw
        self.register_buffer("table", view_id_table(num_ids, dim), persistent=False)

    def forward(
        self,
        batch: int,
        views: int,
        view_ids: Int[Tensor, "batch views"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch views dim"]:
        """The rows of `view_ids`, or without them those of the policy; 0 marks the reference view.

        Raises:
            ConfigError: more views than rows, ids out of range, or ids to draw in training without a generator.
        """
        limit = len(self.table)
        if view_ids is None:
            view_ids = self._choose(batch, views, generator)
        elif int(view_ids.min()) < 0 or int(view_ids.max()) >= limit:
            raise ConfigError(
                f"View ids must lie in 0 .. {limit - 1}, found {int(view_ids.min())} .. {int(view_ids.max())}; "
                "raise num_view_ids."
            )
        return self.table[view_ids.to(self.table.device)]

    def _choose(self, batch: int, views: int, generator: torch.Generator | None) -> Int[Tensor, "batch views"]:
        if views > len(self.table):
            raise ConfigError(
                f"{views} views, but the table holds {len(self.table)} view ids; give fewer, or raise num_view_ids."
            )
        if self.policy == "sequential":
            return sequential_view_ids(batch, views)
        if generator is None:
            if self.training:
                # Silently repeating the same ids at every step would teach the network those ids alone.
                raise ConfigError("Training draws random view ids from a generator: pass generator= or view_ids=.")
            generator = torch.Generator().manual_seed(INFERENCE_SEED)
        return self.draw(batch, views, len(self.table), generator)


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

    def set_attention_scale(self, scale: float) -> None:
        """Change the factor on the logits of every block."""
        for block in self.blocks:
            attention = block.attn
            assert isinstance(attention, Attention)
            attention.scale = scale

    def forward(
        self,
        tokens: Float[Tensor, "batch views patches in_dim"],
        view_embedding: Float[Tensor, "batch views dim"],
        *,
        keep: Sequence[int] | None = None,
    ) -> list[Float[Tensor, "batch views patches _"]]:
        """All levels: the tokens as they came, then those after each block, the last one normed.

        Args:
            tokens: of the encoder.
            view_embedding: added to every token of a view.
            keep: numbers of the levels that are wanted, rising (0: as they came); None for all. Saves memory.
        """
        return self._run(tokens, self.embed(tokens) + view_embedding[:, :, None], keep)

    def forward_mixed(
        self,
        tokens: Sequence[Float[Tensor, "batch _ in_dim"]],
        view_embedding: Float[Tensor, "batch views dim"],
        *,
        keep: Sequence[int] | None = None,
    ) -> list[list[Float[Tensor, "batch _ _"]]]:
        """`forward` for views of different sizes: one tensor of tokens per view, at every level.

        Raises:
            ValueError: the attention is not "global".
        """
        if self.attention != "global":
            raise ValueError(f"views of different sizes need global attention, this fusion has {self.attention!r}")
        counts = [part.shape[1] for part in tokens]
        # To global attention a scene is one view that holds all tokens.
        joined = torch.cat(list(tokens), dim=1)[:, None]
        rows = [view_embedding[:, [view]].expand(-1, count, -1) for view, count in enumerate(counts)]
        levels = self._run(joined, self.embed(joined) + torch.cat(rows, dim=1)[:, None], keep)
        return [list(torch.split(level[:, 0], counts, dim=1)) for level in levels]

    def _run(
        self,
        tokens: Float[Tensor, "batch views patches in_dim"],
        running: Float[Tensor, "batch views patches dim"],
        keep: Sequence[int] | None,
    ) -> list[Float[Tensor, "batch views patches _"]]:
        views = tokens.shape[1]
        levels = [tokens] if keep is None or 0 in keep else []
        for index, block in enumerate(self.blocks):
            over_views = self.attention == "alternating" and index % 2 == 1
            flat = running.flatten(0, 1) if over_views else running.flatten(1, 2)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                flat = checkpoint(block, flat, use_reentrant=False)
            else:
                flat = block(flat)
            running = flat.unflatten(0, (-1, views)) if over_views else flat.unflatten(1, (views, -1))
            last = index + 1 == len(self.blocks)
            if keep is None or index + 1 in keep:
                levels.append(self.norm(running) if last else running)
        return levels
