"""Multi-head attention, to the own tokens and to others, with the scale in plain sight."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from distill3d.nn.rope import Rotary, rotate


class Attention(nn.Module):
    """Self-attention over the second-to-last axis, with fused q, k and v."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        scale: float | None = None,
        qk_norm_eps: float | None = None,
    ):
        """Set up the layer.

        Args:
            dim: width of the tokens, a multiple of `num_heads`.
            num_heads: number of heads.
            qkv_bias: whether the fused projection has a bias.
            scale: factor on the logits; None for the usual `head_dim ** -0.5`.
            qk_norm_eps: of LayerNorms over each head of the queries and keys, before they turn; None for no such norms.
        """
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"a width of {dim} cannot be split over {num_heads} heads; choose a multiple")
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5 if scale is None else scale
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        head_dim = dim // num_heads
        self.q_norm = nn.Identity() if qk_norm_eps is None else nn.LayerNorm(head_dim, eps=qk_norm_eps)
        self.k_norm = nn.Identity() if qk_norm_eps is None else nn.LayerNorm(head_dim, eps=qk_norm_eps)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, tokens: Float[Tensor, "batch tokens dim"], rotary: Rotary | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """Mix the tokens of each batch row; `rotary` turns queries and keys by their positions."""
        query, key, value = self.split(tokens)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        return self.merge(F.scaled_dot_product_attention(query, key, value, scale=self.scale))

    def split(self, tokens: Float[Tensor, "batch tokens dim"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (batch, heads, tokens, head_dim), before any position is told."""
        fused = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = fused.permute(2, 0, 3, 1, 4)
        # A LayerNorm gives float32 under autocast; attention wants the precision of the values.
        return self.q_norm(query).to(value.dtype), self.k_norm(key).to(value.dtype), value

    def merge(self, mixed: Float[Tensor, "batch heads tokens head_dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Join the heads again."""
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class CrossAttention(nn.Module):
    """Attention from a stream of tokens to another one, the memory."""

    def __init__(self, dim: int, num_heads: int):
        """Set up the layer for tokens and memory of width `dim`, a multiple of `num_heads`."""
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"a width of {dim} cannot be split over {num_heads} heads; choose a multiple")
        self.num_heads = num_heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens dim"],
        memory: Float[Tensor, "batch memory dim"],
        rotary: Rotary | None = None,
        memory_rotary: Rotary | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """What each token reads from the memory; queries turn by `rotary`, keys by `memory_rotary`."""
        query = self.projq(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        key = self.projk(memory).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        value = self.projv(memory).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        if rotary is not None:
            query = rotate(query, rotary)
        if memory_rotary is not None:
            key = rotate(key, memory_rotary)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out
