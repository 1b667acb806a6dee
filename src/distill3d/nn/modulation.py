"""Transformer layers that a condition shifts and scales."""

from jaxtyping import Float
from torch import Tensor, nn

from distill3d.nn.attention import Attention
from distill3d.nn.block import Mlp
from distill3d.nn.rope import Rotary


class ModulatedNorm(nn.Module):
    """LayerNorm(x) * (1 + scale) + shift, where both are linear in SiLU(condition)."""

    def __init__(self, dim: int, *, eps: float = 1e-6):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(
        self, tokens: Float[Tensor, "batch tokens dim"], condition: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Norm the tokens of each row by its condition."""
        shift, scale = self.mlp(condition)[:, None].chunk(2, dim=-1)
        out: Tensor = self.norm(tokens) * (1 + scale) + shift
        return out


class ModulatedBlock(nn.Module):
    """The pre-norm block with a condition in both of its norms."""

    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: float = 4.0):
        super().__init__()
        self.norm1 = ModulatedNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.norm2 = ModulatedNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens dim"],
        condition: Float[Tensor, "batch dim"],
        rotary: Rotary | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Apply both residual branches."""
        tokens = tokens + self.attn(self.norm1(tokens, condition), rotary)
        out: Tensor = tokens + self.mlp(self.norm2(tokens, condition))
        return out
