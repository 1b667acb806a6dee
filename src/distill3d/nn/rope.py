"""Rotary position embedding in two dimensions, as CroCo and its family use it."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Rotary(NamedTuple):
    """The angles of a set of tokens, ready to rotate queries or keys; made once and shared by all blocks."""

    cos: Float[Tensor, "#batch tokens 2 quarter"]
    """Axis 2 is (y, x): the first half of a head turns with the row, the second with the column."""
    sin: Float[Tensor, "#batch tokens 2 quarter"]
    rounding: torch.dtype | None = None
    """Round vectors to this precision before and after the turn, as some reference code does; None for exact."""


def grid_positions(rows: int, columns: int, device: torch.device | None = None) -> Int[Tensor, "1 patches 2"]:
    """Positions (y, x) of a grid of patches, row by row, from (0, 0)."""
    y, x = torch.arange(rows, device=device), torch.arange(columns, device=device)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).view(1, rows * columns, 2)


def rotary_table(
    positions: Int[Tensor, "#batch tokens 2"] | Float[Tensor, "#batch tokens 2"],
    head_dim: int,
    *,
    base: float = 100.0,
    rounding: torch.dtype | None = None,
) -> Rotary:
    """Angles position * base^(-i / q) for i < q = head_dim / 4, in float32.

    Position 0 is the identity and negative positions are fine.

    Args:
        positions: (y, x) of every token; a batch of one serves all rows.
        head_dim: width of an attention head, a multiple of 4.
        base: the longest wave is about this many positions.
        rounding: see `Rotary`.

    Raises:
        ValueError: a width that four does not divide.
    """
    if head_dim % 4:
        raise ValueError(f"a head {head_dim} wide cannot be rotated by rows and columns; choose a multiple of 4")
    quarter = head_dim // 4
    with torch.autocast(positions.device.type, enabled=False):
        exponents = torch.arange(quarter, device=positions.device, dtype=torch.float32) / quarter
        angles = positions.float()[..., None] * base**-exponents  # (batch, tokens, 2, quarter)
        return Rotary(angles.cos(), angles.sin(), rounding)


def rotate(
    vectors: Float[Tensor, "batch heads tokens head_dim"], rotary: Rotary
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Turn queries or keys: in each half of a head, element i and element i + q are one plane.

    Computed in float32, returned in the precision of `vectors`.
    """
    cos, sin = rotary.cos[:, None], rotary.sin[:, None]  # one for all heads
    exact = vectors if rotary.rounding is None else vectors.to(rotary.rounding)
    quarter = vectors.shape[-1] // 4
    first, second = exact.float().reshape(*vectors.shape[:-1], 2, 2, quarter).unbind(dim=-2)
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-2).flatten(-3)
    return (turned if rotary.rounding is None else turned.to(rotary.rounding)).to(vectors.dtype)
