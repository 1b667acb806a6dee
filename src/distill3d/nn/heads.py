"""The cheapest dense head: every token predicts its own patch of pixels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class LinearHead(nn.Module):
    """One linear layer per token and a pixel shuffle (the linear head of DUSt3R)."""

    def __init__(self, in_dim: int, *, patch_size: int, out_channels: int = 4):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(in_dim, out_channels * patch_size**2)

    @property
    def last(self) -> nn.Linear:
        """The layer that writes the raw channels."""
        return self.proj

    def forward(
        self, levels: Sequence[Float[Tensor, "batch patches _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "batch channels height width"]:
        """The raw map in float32 from the last level of tokens; `patch_size` times the grid of (rows, columns)."""
        with torch.autocast(levels[-1].device.type, enabled=False):
            flat = self.proj(levels[-1].float())
        return F.pixel_shuffle(flat.transpose(1, 2).unflatten(2, grid), self.patch_size)
