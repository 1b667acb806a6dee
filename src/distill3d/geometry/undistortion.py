"""How large a picture is once its lens is undone, by the rule of COLMAP's undistorter."""

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.geometry.lenses import Params, undistort

_SMALLEST, _LARGEST = 0.2, 2.0


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
    k = intrinsics.double()
    rows, columns = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)

    def straight(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        focal, centre = k.diagonal()[:2], k[:2, 2]
        points = (torch.stack(torch.broadcast_tensors(x, y), dim=-1) - centre) / focal
        column, row = (undistort(model, params, points) * focal + centre).unbind(dim=-1)
        return column, row

    first, last_column, last_row = (torch.tensor(float(place)) for place in (0, width - 1, height - 1))
    left, right = straight(first, rows)[0].max(), straight(last_column, rows)[0].min()
    top, bottom = straight(columns, first)[1].max(), straight(columns, last_row)[1].min()
    wide = _grown(width, float(k[0, 2]), float(left), float(right))
    high = _grown(height, float(k[1, 2]), float(top), float(bottom))
    return high, wide


def _grown(length: int, centre: float, low: float, high: float) -> int:
    """Pixels of one axis: `low` and `high` are where its first and last pixel centre come to lie."""
    # COLMAP measures the first half from the corner and the second from the last pixel's centre.
    zoom = max((centre + 0.5) / (centre - low), (length - 1 - centre) / (high - centre))
    return max(1, int(min(max(1 / zoom, _SMALLEST), _LARGEST) * length))
