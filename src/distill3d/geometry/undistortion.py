"""How large a picture is once its lens is undone, by the rule of COLMAP's undistorter."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.geometry.lenses import Params, undistort

_SMALLEST, _LARGEST = 0.2, 2.0
_LOOKED_AT = 65
_STEPS = 10


def undistorted_size(
    intrinsics: Float[Tensor, "3 3"], model: str, params: Params, size: tuple[int, int]
) -> tuple[int, int]:
    """(height, width) of the largest picture without blank borders that keeps focal lengths and relative centre.

    COLMAP undistorts so by default: the picture is cropped or grown about its principal point, never zoomed.

    Args:
        intrinsics: of the distorted picture, integer pixel centres.
        model: COLMAP's name of the lens.
        params: its distortion parameters.
        size: (height, width) of the distorted picture.

    Raises:
        GeometryError: there is no such model, or it has another number of parameters.
    """
    height, width = size
    focal, centre = intrinsics.double().diagonal()[:2], intrinsics.double()[:2, 2]
    rows, columns = _along(height, float(centre[1])), _along(width, float(centre[0]))
    sides = [
        torch.stack([torch.zeros_like(rows), rows], dim=-1),
        torch.stack([torch.full_like(rows, width - 1), rows], dim=-1),
        torch.stack([columns, torch.zeros_like(columns)], dim=-1),
        torch.stack([columns, torch.full_like(columns, height - 1)], dim=-1),
    ]
    border = (torch.cat(sides) - centre) / focal
    straight = undistort(model, params, border, steps=_STEPS) * focal + centre
    left, right, top, bottom = straight.reshape(4, -1, 2).unbind()
    wide = _grown(width, float(centre[0]), float(left[:, 0].max()), float(right[:, 0].min()))
    high = _grown(height, float(centre[1]), float(top[:, 1].max()), float(bottom[:, 1].min()))
    return high, wide


def _along(length: int, centre: float) -> Float[Tensor, " pixels"]:
    """Pixels of one side that are looked at: its ends and those beside the centre, where extremes lie, and others."""
    evenly = torch.linspace(0, length - 1, _LOOKED_AT, dtype=torch.float64).round()
    middle = torch.tensor([math.floor(centre), math.ceil(centre)], dtype=torch.float64).clamp(0, length - 1)
    return torch.cat([evenly, middle])


def _grown(length: int, centre: float, low: float, high: float) -> int:
    """Pixels of one axis: `low` and `high` are where its first and last pixel centre come to lie."""
    # COLMAP measures the first half from the corner and the second from the last pixel's centre.
    zoom = max((centre + 0.5) / (centre - low), (length - 1 - centre) / (high - centre))
    return max(1, int(min(max(1 / zoom, _SMALLEST), _LARGEST) * length))
