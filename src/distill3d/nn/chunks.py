"""Dense heads over a few views at a time: they take most of the memory, and no view looks at another there."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from distill3d.errors import ConfigError

WORKING_MAPS = 4.0
"""Full-size maps of the widest layer that a DPT head holds at once without gradients (measured: 3.2 to 3.8)."""


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


def chunk_within(memory_bytes: int, size: tuple[int, int], channels: int, *, bytes_per_value: int = 4) -> int:
    """How many views fit into one pass of a DPT head without gradients; at least one, however little the memory.

    Args:
        memory_bytes: what the pass may take, beside weights, tokens and the finished maps.
        size: (height, width) of the maps in pixels.
        channels: of the widest layer at full size: half of a DPT head's `features`.
        bytes_per_value: 4 for float32, in which our heads run.

    Raises:
        ConfigError: a size or a number of channels or bytes that is not positive.
    """
    per_view = WORKING_MAPS * size[0] * size[1] * channels * bytes_per_value
    if min(*size, channels, bytes_per_value) < 1:
        raise ConfigError(
            f"Maps of {size[0]}x{size[1]} with {channels} channels of {bytes_per_value} bytes are empty; "
            "give a positive height, width, number of channels and bytes per value."
        )
    return max(1, int(memory_bytes / per_view))
