"""Pixels of two views that show the same point, found by their descriptors (MASt3R, section 3.3)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.errors import ConfigError

BLOCK = 2**13
"""Descriptors per side of a block of dot products: bounds the memory at 256 MB."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Pairs of pixels, sorted by the pixel of the first view, row by row."""

    first: Int[Tensor, "matches 2"]
    """(x, y) in the first view."""
    second: Int[Tensor, "matches 2"]
    """(x, y) in the second view."""
    confidence: Float[Tensor, " matches"] | None = None
    """The lower one of the two pixels' descriptor confidences."""


@torch.no_grad()
def reciprocal_matches(
    first: Float[Tensor, "height1 width1 channels"],
    second: Float[Tensor, "height2 width2 channels"],
    *,
    subsample: int = 8,
    max_rounds: int = 10,
) -> Matches:
    """Find pixels that are each other's nearest neighbour, starting from a grid of pixels of the first view.

    From every start the search jumps to the nearest descriptor of the other view and back until it stays. Pixels it
    arrives at need not lie on the grid.

    Args:
        first, second: descriptors of unit length; near means a large dot product.
        subsample: distance of the grid's pixels; 1 starts everywhere.
        max_rounds: starts that still move then are given up.

    Raises:
        ConfigError: a distance or number below 1.
    """
    if subsample < 1 or max_rounds < 1:
        raise ConfigError(f"subsample={subsample} and max_rounds={max_rounds} must both be at least 1")
    height, width = first.shape[:2]
    rows = torch.arange(subsample // 2, height, subsample, device=first.device)
    columns = torch.arange(subsample // 2, width, subsample, device=first.device)
    here = (rows[:, None] * width + columns).flatten()
    there = torch.full_like(here, -1)
    flat_first, flat_second = first.flatten(0, 1), second.flatten(0, 1)
    found = []
    for _ in range(max_rounds):
        if not len(here):
            break
        arrived = nearest_descriptors(flat_first[here], flat_second)
        back = nearest_descriptors(flat_second[arrived], flat_first)
        still = (arrived == there) | (back == here)
        found.append(torch.stack([here[still], arrived[still]], dim=1))
        here, there = back[~still], arrived[~still]
    pairs: Tensor = torch.unique(torch.cat(found), dim=0) if found else here.new_zeros(0, 2)
    return Matches(first=_pixels(pairs[:, 0], width), second=_pixels(pairs[:, 1], second.shape[1]))


@torch.no_grad()
def match_pixels(
    pixels: Int[Tensor, "pixels 2"],
    first: Float[Tensor, "height1 width1 channels"],
    second: Float[Tensor, "height2 width2 channels"],
    *,
    tolerance_px: float = 0.0,
) -> Matches:
    """Match given pixels (x, y) of the first view; those stay whose partner leads back to within `tolerance_px`."""
    width = first.shape[1]
    flat_first, flat_second = first.flatten(0, 1), second.flatten(0, 1)
    arrived = nearest_descriptors(flat_first[pixels[:, 1] * width + pixels[:, 0]], flat_second)
    back = _pixels(nearest_descriptors(flat_second[arrived], flat_first), width)
    near = torch.linalg.vector_norm((back - pixels).float(), dim=-1) <= tolerance_px
    return Matches(first=pixels[near], second=_pixels(arrived[near], second.shape[1]))


def symmetric_matches(
    first: Float[Tensor, "height1 width1 channels"],
    second: Float[Tensor, "height2 width2 channels"],
    confidence_first: Float[Tensor, "height1 width1"],
    confidence_second: Float[Tensor, "height2 width2"],
    *,
    subsample: int = 8,
    border: int = 3,
) -> Matches:
    """Reciprocal matches from both sides, each with the lower of its two confidences.

    Args:
        first, second, subsample: as for `reciprocal_matches`.
        confidence_first, confidence_second: of the descriptors.
        border: matches this close to an edge of either view are dropped, since descriptors are poor there.
    """
    forward = reciprocal_matches(first, second, subsample=subsample)
    backward = reciprocal_matches(second, first, subsample=subsample)
    widths = first.shape[1], second.shape[1]
    both = torch.cat([
        torch.stack([_indices(forward.first, widths[0]), _indices(forward.second, widths[1])], dim=1),
        torch.stack([_indices(backward.second, widths[0]), _indices(backward.first, widths[1])], dim=1),
    ])  # fmt: skip
    pairs: Tensor = torch.unique(both, dim=0)
    confidence = torch.minimum(confidence_first.flatten()[pairs[:, 0]], confidence_second.flatten()[pairs[:, 1]])
    ends = _pixels(pairs[:, 0], widths[0]), _pixels(pairs[:, 1], widths[1])
    inside = torch.ones_like(confidence, dtype=torch.bool)
    for pixels, descriptors in zip(ends, (first, second), strict=True):
        limit = torch.tensor([descriptors.shape[1], descriptors.shape[0]], device=pixels.device)
        inside &= ((pixels >= border) & (pixels < limit - border)).all(dim=-1)
    return Matches(first=ends[0][inside], second=ends[1][inside], confidence=confidence[inside])


def nearest_descriptors(
    queries: Float[Tensor, "queries channels"], others: Float[Tensor, "others channels"]
) -> Int[Tensor, " queries"]:
    """The index of the largest dot product for every query, in blocks that bound the memory."""
    nearest = []
    for part in torch.split(queries, BLOCK):
        best = torch.full((len(part),), -torch.inf, dtype=part.dtype, device=part.device)
        index = torch.zeros(len(part), dtype=torch.long, device=part.device)
        for start in range(0, len(others), BLOCK):
            value, place = (part @ others[start : start + BLOCK].T).max(dim=1)
            better = value > best
            best, index = torch.where(better, value, best), torch.where(better, place + start, index)
        nearest.append(index)
    return torch.cat(nearest)


def _pixels(indices: Int[Tensor, " pixels"], width: int) -> Int[Tensor, "pixels 2"]:
    return torch.stack([indices % width, indices // width], dim=-1)


def _indices(pixels: Int[Tensor, "pixels 2"], width: int) -> Int[Tensor, " pixels"]:
    return pixels[:, 1] * width + pixels[:, 0]
