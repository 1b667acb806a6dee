"""The size of a pointmap, which most losses and metrics divide by."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_distance(
    points: Float[Tensor, "batch views height width 3"],
    valid: Bool[Tensor, "batch views height width"],
    over: Literal["sample", "view"] = "sample",
) -> Float[Tensor, "batch *per"]:
    """Give the mean distance of the valid points to the origin, per sample or per view; 0 where none is valid.

    Points outside the mask may be anything, NaN included.
    """
    # Select before the norm: a NaN outside the mask would otherwise reach the gradient.
    inside = torch.where(valid[..., None], points, 0.0)
    distance = torch.linalg.vector_norm(inside, dim=-1)
    axes = (1, 2, 3) if over == "sample" else (2, 3)
    total: Tensor = distance.sum(dim=axes)
    return total / valid.sum(dim=axes).clamp(min=1)


def normalize_pointmaps(
    points: Float[Tensor, "batch views height width 3"],
    valid: Bool[Tensor, "batch views height width"],
    over: Literal["sample", "view"] = "sample",
) -> tuple[Float[Tensor, "batch views height width 3"], Float[Tensor, "batch *per"]]:
    """Divide pointmaps by their mean distance to the origin, and give that distance.

    A sample (or view) without a valid point, or with all of them at the origin, is divided by 1.
    """
    size = mean_distance(points, valid, over)
    size = torch.where(size > 0, size, 1.0)
    spread = size[:, None, None, None, None] if over == "sample" else size[:, :, None, None, None]
    return points / spread, size
