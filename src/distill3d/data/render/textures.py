"""A bank of procedural patterns with mip levels, shared by every scene.

A pattern says, for each texel, how much of a material's second and third colour shows and how bright it is; so a few
dozen patterns in any colours make endless materials. All of them repeat without a seam. The renderer blends between
two mip levels by the size of a pixel on the surface, so that distant patterns fade into their mean instead of noise.
"""

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from distill3d.data.render.patterns import PATTERNS, RESOLUTION
from distill3d.errors import ConfigError

_NAMES = tuple(PATTERNS)
_LEVELS = int(math.log2(RESOLUTION)) + 1

Pattern = Float[Tensor, "3 size size"]


@dataclass(frozen=True)
class TextureBank:
    """All patterns, all mip levels, as one table of texels."""

    texels: Float[Tensor, "texels 3"]
    """Share of the second colour, share of the third, brightness."""
    starts: Int[Tensor, " levels"]
    """Row where each mip level begins; it holds pattern after pattern, row after row."""

    def sample(
        self,
        texture: Int[Tensor, " points"],
        u: Float[Tensor, " points"],
        v: Float[Tensor, " points"],
        footprint: Float[Tensor, " points"],
    ) -> Float[Tensor, "points 3"]:
        """Look up patterns at (u, v), which repeat after 1, averaged over `footprint` (trilinear)."""
        level = (footprint * RESOLUTION).clamp_(1, RESOLUTION).log2_()
        coarse = level.floor().clamp_(max=_LEVELS - 2)
        blend = (level - coarse)[:, None]
        first = coarse.long()
        return torch.lerp(self._bilinear(texture, u, v, first), self._bilinear(texture, u, v, first + 1), blend)

    def _bilinear(self, texture: Tensor, u: Tensor, v: Tensor, level: Tensor) -> Tensor:
        size = torch.bitwise_right_shift(torch.full_like(level, RESOLUTION), level)
        x, y = (u - u.floor()) * size - 0.5, (v - v.floor()) * size - 0.5
        left, top = x.floor(), y.floor()
        right_share, bottom_share = (x - left)[:, None], (y - top)[:, None]
        x0, y0 = left.long(), top.long()
        mask = size - 1  # sizes are powers of two, so `& mask` wraps around
        start = self.starts[level] + texture * size * size
        row0, row1 = start + (y0 & mask) * size, start + ((y0 + 1) & mask) * size
        x0, x1 = x0 & mask, (x0 + 1) & mask
        upper = torch.lerp(self.texels[row0 + x0], self.texels[row0 + x1], right_share)
        lower = torch.lerp(self.texels[row1 + x0], self.texels[row1 + x1], right_share)
        return torch.lerp(upper, lower, bottom_share)


def texture_index(name: str) -> int:
    """Number of a pattern in the bank.

    Raises:
        ConfigError: there is no pattern of that name.
    """
    try:
        return _NAMES.index(name)
    except ValueError:
        raise ConfigError(f"no texture is called {name!r}; there are {', '.join(_NAMES)}") from None


@functools.cache
def texture_bank(device: torch.device | str = "cpu") -> TextureBank:
    """Make the bank (the same one every time; about a second), or move it to a device."""
    if str(device) != "cpu":
        bank = texture_bank()
        return TextureBank(bank.texels.to(device), bank.starts.to(device))
    images = torch.stack(
        [make(torch.Generator().manual_seed(1000 + number)) for number, make in enumerate(PATTERNS.values())]
    )
    levels = [images]
    for _ in range(_LEVELS - 1):
        levels.append(functional.avg_pool2d(levels[-1], 2))
    counts = torch.tensor([level.shape[0] * level.shape[2] * level.shape[3] for level in levels])
    texels = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, 3) for level in levels]).contiguous()
    return TextureBank(texels, counts.cumsum(0) - counts)
