"""Error as real teachers make it: spatially varying, partly systematic, with a confidence that knows of it.

At strength 1 the relative error along the ray has a standard deviation of 1.5 %, plus up to 5 % at depth edges, plus
1 % times the distance (in units of the mean distance of the group). The brightest fifth of the photos, where real
teachers meet glare and sky, has 30 % more and is pushed outward by 36 %: the systematic part, which no averaging
removes. Everything grows in proportion to the strength. The confidence is 1 + 0.15 / deviation * log-normal noise.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

BASE, EDGE, DISTANCE = 0.015, 0.05, 0.01
BRIGHT, OUTWARD = 0.30, 0.36
BRIGHT_SHARE = 0.185
"""Share of the usable pixels that counts as bright."""
BRIGHT_RAMP = 0.03
"""Luminance over which a region goes from normal to bright."""
FULL_EDGE = 0.30
"""Relative step in depth between neighbours from which an edge counts in full."""
CONFIDENCE_GAIN, CONFIDENCE_NOISE = 0.15, 0.2

Maps = Float[Tensor, "views height width"]


def disturb(
    depth: Maps,
    images: Float[Tensor, "views 3 height width"],
    usable: Bool[Tensor, "views height width"],
    strength: float,
    generator: torch.Generator,
) -> tuple[Maps, Maps]:
    """The factor by which each point moves along its ray, and the confidence in it (above 1).

    Args:
        depth: planar z-depth of one view group.
        images: RGB in [0, 1].
        usable: where depth is known; the rest decides nothing.
        strength: 0 for none; 1 as described above.
        generator: of the CPU; drawn from in the same order on every device.
    """
    mean = depth[usable].mean() if usable.any() else depth.new_ones(())
    bright = _bright_regions(images, usable)
    deviation = strength * (BASE + EDGE * _depth_edges(depth, usable) + DISTANCE * depth / mean + BRIGHT * bright)
    random = deviation * _smooth_noise(depth, generator)
    # The exponential keeps points in front of the camera, whatever the strength.
    factor = (1 + strength * OUTWARD * bright) * random.clamp(-2, 2).exp()
    guess = (CONFIDENCE_NOISE * _smooth_noise(depth, generator)).exp()
    return factor, 1 + CONFIDENCE_GAIN / deviation * guess


def _depth_edges(depth: Maps, usable: Bool[Tensor, "views height width"]) -> Maps:
    """1 where depth jumps between usable neighbours, down to 0 on smooth surfaces."""
    logarithm = depth.clamp(min=1e-6).log()
    edges = torch.zeros_like(depth)
    for axis in (-2, -1):
        length = depth.shape[axis] - 1
        first, second = (logarithm.narrow(axis, start, length) for start in (0, 1))
        both = usable.narrow(axis, 0, length) & usable.narrow(axis, 1, length)
        step = torch.where(both, (second - first).abs() / FULL_EDGE, 0.0).clamp(max=1)
        for start in (0, 1):
            side = edges.narrow(axis, start, length)
            side.copy_(torch.maximum(side, step))
    return nn.functional.max_pool2d(edges[:, None], 3, stride=1, padding=1)[:, 0]


def _bright_regions(images: Float[Tensor, "views 3 height width"], usable: Bool[Tensor, "views height width"]) -> Maps:
    """1 in the brightest regions of the group, 0 elsewhere, with a soft rim."""
    size = 2 * (max(images.shape[-2:]) // 56) + 1
    luminance = images.mean(dim=1, keepdim=True)
    smooth = nn.functional.avg_pool2d(luminance, size, stride=1, padding=size // 2, count_include_pad=False)[:, 0]
    values = smooth[usable]
    if not len(values):
        return torch.zeros_like(smooth)
    threshold = values.kthvalue(1 + int((1 - BRIGHT_SHARE) * (len(values) - 1))).values
    return ((smooth - threshold) / BRIGHT_RAMP).clamp(0, 1)


def _smooth_noise(like: Maps, generator: torch.Generator) -> Maps:
    """Noise of unit deviation in each view, correlated over about a tenth of the image."""
    views, height, width = like.shape
    cell = max(2, max(height, width) // 10)
    coarse = torch.randn(views, 1, -(-height // cell) + 3, -(-width // cell) + 3, generator=generator)
    grown = nn.functional.interpolate(coarse, scale_factor=cell, mode="bicubic", align_corners=False)
    part = grown[:, 0, cell : cell + height, cell : cell + width]
    return (part / part.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-6)).to(like)
