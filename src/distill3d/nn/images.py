"""What stands before every encoder: the statistics of the pixels, and the grid of patches."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.errors import ConfigError

ImageStatistics = Literal["imagenet", "half"]
"""Mean and deviation of ImageNet (DINOv2, DUNE, VGGT), or 0.5 and 0.5 (the DUSt3R family)."""
IMAGE_STATISTICS: dict[ImageStatistics, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class ImageNormalisation(nn.Module):
    """(images - mean) / deviation per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: ImageStatistics, *, stored: bool = False):
        """Set up the constants; `stored` if the weight files of the model hold them (MoGe and Pi3 do)."""
        super().__init__()
        mean, std = IMAGE_STATISTICS[statistics]
        shape = (1, 3, 1, 1) if stored else (3, 1, 1)
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=stored)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=stored)

    def forward(self, images: Float[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 3 height width"]:
        """Normalise RGB in [0, 1]."""
        return (images - self.mean) / self.std


def patch_grid(images: Float[Tensor, "*batch 3 height width"], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        ConfigError: the images are empty, or a side is no multiple of the patch size.
    """
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size or height * width == 0:
        nearest = [max(1, round(side / patch_size)) * patch_size for side in (height, width)]
        raise ConfigError(
            f"The images are {height}x{width} pixels, but both sides must be multiples of the patch size {patch_size}. "
            f"Resize them, e.g. to {nearest[0]}x{nearest[1]}."
        )
    return height // patch_size, width // patch_size
