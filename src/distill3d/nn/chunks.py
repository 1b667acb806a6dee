"""Dense heads over a few views at a time: they take most of the memory, and no view looks at another there."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_chunks(
    head: Callable[[list[Tensor], tuple[int, int]], Tensor],
    levels: Sequence[Float[Tensor, "maps _ _"]],
    grid: tuple[int, int],
    chunk: int | None,
    *,
    recompute: bool = False,
) -> Float[Tensor, "maps channels height width"]:
    """`head(levels, grid)`, with `chunk` views per pass.

    Args:
        head: from levels of tokens and their grid to raw maps, each view on its own.
        levels: tokens of all views, one tensor per level.
        grid: rows and columns of the patches.
        chunk: views per pass; None for all at once. It bounds the memory and changes no value.
        recompute: run each pass again for its gradient instead of keeping what it needs.
    """
    count = len(levels[0])
    chunk = count if chunk is None else max(1, chunk)
    maps = []
    for start in range(0, count, chunk):
        part = [level[start : start + chunk] for level in levels]
        if recompute and torch.is_grad_enabled():
            maps.append(checkpoint(head, part, grid, use_reentrant=False))
        else:
            maps.append(head(part, grid))
    return torch.cat(maps) if len(maps) > 1 else maps[0]
