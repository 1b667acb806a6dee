"""From an image to one token per patch."""

from jaxtyping import Float
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """A convolution whose kernel is its stride; tokens come out row by row."""

    def __init__(self, patch_size: int, dim: int, *, in_channels: int = 3):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch patches dim"]:
        """Embed the patches of images whose sides are multiples of the patch size."""
        out: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return out
