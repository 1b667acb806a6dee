"""The decoder of DUSt3R and MASt3R: two streams that read each other, each with blocks of its own."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distill3d.nn.croco_vit import CrocoTokens, DecoderBlock
from distill3d.nn.rope import Rotary, rotary_table


class PairDecoder(nn.Module):
    """Step by step, each stream reads what the other one was a step before."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        rope_base: float = 100.0,
    ):
        """Set up the decoder.

        Args:
            in_dim: width of the encoder's tokens.
            dim: width inside.
            depth: blocks per stream.
            num_heads: attention heads per block.
            mlp_ratio: hidden width of the MLPs over `dim`.
            rope_base: of the rotary positions.
        """
        super().__init__()
        self.head_dim = dim // num_heads
        self.rope_base = rope_base
        self.gradient_checkpointing = False
        self.embed = nn.Linear(in_dim, dim)
        self.first = nn.ModuleList(DecoderBlock(dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.second = nn.ModuleList(DecoderBlock(dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(
        self, first: CrocoTokens, second: CrocoTokens
    ) -> tuple[list[Float[Tensor, "batch patches1 _"]], list[Float[Tensor, "batch patches2 _"]]]:
        """All levels of both streams: the encoder's tokens, then those after each block, the last ones normed."""
        turn_first = rotary_table(first.positions, self.head_dim, base=self.rope_base)
        turn_second = rotary_table(second.positions, self.head_dim, base=self.rope_base)
        a, b = self.embed(first.tokens), self.embed(second.tokens)
        levels_first, levels_second = [first.tokens], [second.tokens]
        for block_first, block_second in zip(self.first, self.second, strict=True):
            a, b = (
                self._step(block_first, a, b, turn_first, turn_second),
                self._step(block_second, b, a, turn_second, turn_first),
            )
            levels_first.append(a)
            levels_second.append(b)
        levels_first[-1], levels_second[-1] = self.norm(a), self.norm(b)
        return levels_first, levels_second

    def _step(self, block: nn.Module, tokens: Tensor, memory: Tensor, turn: Rotary, turn_memory: Rotary) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            again: Tensor = checkpoint(block, tokens, memory, turn, turn_memory, use_reentrant=False)
            return again
        out: Tensor = block(tokens, memory, turn, turn_memory)
        return out
