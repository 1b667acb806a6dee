"""Dense heads over a batch that stores portrait images transposed among landscape ones."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def in_orientations(
    head: Callable[[list[Tensor], tuple[int, int]], Tensor],
    levels: Sequence[Float[Tensor, "maps _ _"]],
    grid: tuple[int, int],
    portrait: Bool[Tensor, " maps"] | None,
) -> Float[Tensor, "maps channels height width"]:
    """`head(levels, grid)`, with the marked rows seen upright and their maps transposed back into the batch.

    Only the grid of pixels turns: x and y of a point stay what they are.

    Args:
        head: from levels of tokens and their grid to raw maps, each row on its own.
        levels: tokens of all rows, one tensor per level; those of portrait rows stand in upright order.
        grid: rows and columns of the patches, as the batch stores them.
        portrait: rows that are transposed portrait images; None for none.
    """
    if portrait is None or not bool(portrait.any()):
        return head(list(levels), grid)
    upright = head([level[portrait] for level in levels], (grid[1], grid[0])).transpose(-1, -2)
    if bool(portrait.all()):
        return upright
    lying = head([level[~portrait] for level in levels], grid)
    maps = torch.empty(len(portrait), *lying.shape[1:], dtype=lying.dtype, device=lying.device)
    # Out of place: gradients must reach both heads' runs.
    return maps.index_copy(0, portrait.nonzero()[:, 0], upright).index_copy(0, (~portrait).nonzero()[:, 0], lying)
