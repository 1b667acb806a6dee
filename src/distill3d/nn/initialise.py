"""Fresh weights that depend on a generator and nothing else."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

InitScheme = Literal["normal_002", "muon"]
"""Matrices normal with deviation 0.02, or with 0.7 / sqrt(fan_in) for Muon and short training."""

TOKEN_STD = 0.02


@torch.no_grad()
def initialise_(module: nn.Module, scheme: InitScheme, generator: torch.Generator) -> None:
    """Overwrite the weights of every linear layer and convolution, and the free tokens of encoders.

    Norms and LayerScales keep the values they were built with; biases become zero. With "normal_002" convolutions are
    drawn as PyTorch does (1 / sqrt(3 fan_in)); with "muon" position tables start as sines and cosines of the place.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            # A transposed convolution with stride = kernel hands each output pixel in_channels values.
            fan_in = part.in_channels if isinstance(part, nn.ConvTranspose2d) else part.weight[0].numel()
            if scheme == "muon":
                std = 0.7 / math.sqrt(fan_in)
            else:
                std = 0.02 if isinstance(part, nn.Linear) else 1 / math.sqrt(3 * fan_in)
            part.weight.normal_(0, std, generator=generator)
            if part.bias is not None:
                part.bias.zero_()
        if isinstance(part, nn.MultiheadAttention):  # its output is a linear layer, its input three in one
            part.in_proj_weight.normal_(0, 0.02, generator=generator)
            part.in_proj_bias.zero_()
        for name in ("cls_token", "register_tokens", "mask_token", "pos_embed"):
            token = getattr(part, name, None)
            if isinstance(token, nn.Parameter):
                token.normal_(0, TOKEN_STD, generator=generator)
        if scheme == "muon" and isinstance(getattr(part, "pos_embed", None), nn.Parameter):
            table = part.pos_embed
            assert isinstance(table, Tensor)
            table[0, 1:] = sine_cosine_positions(math.isqrt(table.shape[1] - 1), table.shape[2])


def sine_cosine_positions(side: int, dim: int) -> Float[Tensor, "entries dim"]:
    """Sines and cosines of column and row for a square grid, row by row; leftover channels are zero.

    The slowest wave passes a quarter period over the grid, the fastest turns by one radian per patch.
    """
    bands = dim // 4
    slowest = math.pi / 2 / max(side, 1)
    frequencies = torch.logspace(0, math.log10(slowest), bands, dtype=torch.float64)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    wave = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, 2 bands)
    columns, rows = wave.expand(side, -1, -1), wave[:, None].expand(-1, side, -1)
    table = torch.zeros(side * side, dim)
    table[:, : 4 * bands] = torch.cat([columns, rows], dim=-1).flatten(0, 1).float()
    return table
