"""Dense heads over a few views at a time: they take most of the memory, and no view looks at another there."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

HEAD_MEMORY = 2 * 2**30
"""Bytes that a pass of the heads may take where nobody says: three views of 518 x 518 through a DPT head at full width.
A constant, so that the same photos pass in the same chunks on every machine."""


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


@runtime_checkable
class DenseModule(Protocol):
    """A head, or a whole network of single views, that can say what a view costs it."""

    def bytes_per_view(self, size: tuple[int, int]) -> int:
        """Bytes that one view holds at once without gradients, beside weights and inputs; an upper bound.

        Args:
            size: (height, width) of the image in pixels.
        """


def max_views_per_chunk(model: nn.Module, size: tuple[int, int], memory: int = HEAD_MEMORY) -> int | None:
    """How many views may pass through the dense heads of a network at once.

    Args:
        model: the network; its parts that are `DenseModule`s count.
        size: (height, width) of its images in pixels.
        memory: bytes that such a pass may take.

    Returns:
        The most views whose pass stays within `memory`, at least one; None for a network without dense parts.
    """
    costs = [part.bytes_per_view(size) for part in model.modules() if isinstance(part, DenseModule)]
    return max(1, memory // max(costs)) if costs else None
