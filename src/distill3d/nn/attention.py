"""Multi-head self-attention with the scale in plain sight."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention over the second-to-last axis, with fused q, k and v."""

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True, scale: float | None = None):
        """Set up the layer.

        Args:
            dim: width of the tokens, a multiple of `num_heads`.
            num_heads: number of heads.
            qkv_bias: whether the fused projection has a bias.
            scale: factor on the logits; None for the usual `head_dim ** -0.5`.
        """
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"a width of {dim} cannot be split over {num_heads} heads; choose a multiple")
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5 if scale is None else scale
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Mix the tokens of each batch row."""
        fused = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = fused.permute(2, 0, 3, 1, 4)  # each (batch, heads, tokens, head_dim)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out
