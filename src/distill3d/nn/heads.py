"""The cheapest dense head: every token predicts its own patch of pixels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from distill3d.nn.block import Mlp


class LinearHead(nn.Module):
    """One linear layer or MLP per token and a pixel shuffle (the "linear" heads of DUSt3R and CUT3R)."""

    def __init__(self, in_dim: int, *, patch_size: int, out_channels: int = 4, hidden: int | None = None):
        """Set up the head.

        Args:
            in_dim: width of the tokens.
            patch_size: side of a patch: the map has that many pixels per token.
            out_channels: channels of the map.
            hidden: width of a hidden layer; None for none, as in DUSt3R.
        """
        super().__init__()
        self.patch_size = patch_size
        channels = out_channels * patch_size**2
        self.proj = nn.Linear(in_dim, channels) if hidden is None else Mlp(in_dim, hidden, channels)

    @property
    def _widths(self) -> tuple[int, int]:
        first = self.proj.fc1 if isinstance(self.proj, Mlp) else self.proj
        return first.in_features, self.last.in_features

    @property
    def last(self) -> nn.Linear:
        """The layer that writes the raw channels."""
        return self.proj.fc2 if isinstance(self.proj, Mlp) else self.proj

    def bytes_per_view(self, size: tuple[int, int]) -> int:
        """Memory of one view without gradients, an upper bound; see `nn.chunks.DenseModule`."""
        tokens = size[0] * size[1] // self.patch_size**2
        # What a token is, becomes inside of an MLP, and writes: each there twice while it is turned into the next.
        return 4 * 2 * tokens * sum((self.last.out_features, *self._widths))

    def forward(
        self, levels: Sequence[Float[Tensor, "batch patches _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "batch channels height width"]:
        """The raw map in float32 from the last level of tokens; `patch_size` times the grid of (rows, columns)."""
        with torch.autocast(levels[-1].device.type, enabled=False):
            flat = self.proj(levels[-1].float())
        return F.pixel_shuffle(flat.transpose(1, 2).unflatten(2, grid), self.patch_size)
