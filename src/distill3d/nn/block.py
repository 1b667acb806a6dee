"""The pre-norm transformer block of ViT, DINOv2, DUNE, CroCo and the fusion networks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from distill3d.nn.attention import Attention
from distill3d.nn.rope import Rotary


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden: int, out_dim: int | None = None):
        """Set up the layers; `out_dim` is the width of what comes out, None for that of what goes in."""
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim if out_dim is None else out_dim)

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch out_dim"]:
        """Transform each token on its own."""
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, dim: int, initial: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Scale the channels."""
        return tokens * self.gamma


class Block(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x)); each branch may carry a LayerScale."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
        layer_scale: float | None = None,
        attention_scale: float | None = None,
        qk_norm_eps: float | None = None,
    ):
        """Set up the block.

        Args:
            dim: width of the tokens.
            num_heads: number of attention heads.
            mlp_ratio: hidden width of the MLP over `dim`.
            norm_eps: of both LayerNorms (1e-6 in DINOv2, 1e-5 in the decoder of Fast3R).
            layer_scale: initial LayerScale; None for no LayerScale at all.
            attention_scale: factor on the logits; None for `head_dim ** -0.5`.
            qk_norm_eps: of LayerNorms over each head of the queries and keys; None for no such norms.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, scale=attention_scale, qk_norm_eps=qk_norm_eps)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)

    def forward(
        self, tokens: Float[Tensor, "batch tokens dim"], rotary: Rotary | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """Apply both residual branches; `rotary` goes to the attention."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), rotary))
        out: Tensor = tokens + self.ls2(self.mlp(self.norm2(tokens)))
        return out
