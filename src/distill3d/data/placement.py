"""Where a photo (and its depth, and its camera) lands on the canvas."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from distill3d.data.fit import ImageFit, Size, resized_size
from distill3d.errors import DataError

PAD_COLOUR = (124, 116, 104)
"""8-bit RGB of the padding: the mean of ImageNet, which models subtract, so that padding is about zero to them."""


@dataclass(frozen=True)
class Placement:
    """One photo on its canvas: resized from `source` to `resized`, its top-left pixel at `offset`.

    With integer pixel centres, pixel u of the photo lands at (u + 0.5) s - 0.5 + offset, where s = resized / source on
    each axis. Offsets are negative where the photo stands over the canvas.
    """

    source: Size
    """Size of the photo as it is read (upright where EXIF orientation was applied)."""
    resized: Size
    offset: Size
    """(top, left) in canvas pixels."""
    canvas: Size

    @property
    def scale(self) -> tuple[float, float]:
        """(vertical, horizontal) canvas pixels per source pixel; equal but for the rounding to whole pixels."""
        return self.resized[0] / self.source[0], self.resized[1] / self.source[1]

    def to_canvas(self, intrinsics: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
        """Intrinsics of the photo, in pixels of the canvas. Exact in float64; the type is kept."""
        moved: Tensor = self._affine() @ intrinsics.double()
        return moved.to(intrinsics.dtype)

    def to_source(self, intrinsics: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
        """Intrinsics of the canvas, in pixels of the photo: the inverse of `to_canvas`."""
        moved: Tensor = torch.linalg.inv(self._affine()) @ intrinsics.double()
        return moved.to(intrinsics.dtype)

    def valid(self) -> Bool[Tensor, "height width"]:
        """True where the canvas shows the photo."""
        mask = torch.zeros(self.canvas, dtype=torch.bool)
        rows, columns = self._on_canvas()
        mask[rows, columns] = True
        return mask

    def _affine(self) -> Float[Tensor, "3 3"]:
        (vertical, horizontal), (top, left) = self.scale, self.offset
        return torch.tensor(
            [
                [horizontal, 0.0, 0.5 * horizontal - 0.5 + left],
                [0.0, vertical, 0.5 * vertical - 0.5 + top],
                [0.0, 0.0, 1.0],
            ],
            dtype=torch.float64,
        )

    def _on_canvas(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that show the photo."""
        rows, columns = (
            slice(max(start, 0), min(start + length, limit))
            for start, length, limit in zip(self.offset, self.resized, self.canvas, strict=True)
        )
        return rows, columns


def find_placement(source: Size, fit: ImageFit, canvas: Size) -> Placement:
    """Centre a photo of size `source` on `canvas`."""
    resized = resized_size(source, fit, canvas)
    offset = ((canvas[0] - resized[0]) // 2, (canvas[1] - resized[1]) // 2)
    return Placement(source, resized, offset, canvas)


def place_image(
    pixels: UInt8[np.ndarray, "resized_height resized_width 3"], placement: Placement
) -> UInt8[np.ndarray, "height width 3"]:
    """Put an already resized photo on its canvas, padding with `PAD_COLOUR`."""
    canvas = np.empty((*placement.canvas, 3), dtype=np.uint8)
    canvas[:] = PAD_COLOUR
    rows, columns = placement._on_canvas()
    top, left = placement.offset
    canvas[rows, columns] = pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return canvas


def place_depth(
    depth: Float[np.ndarray, "depth_height depth_width"], placement: Placement
) -> Float[Tensor, "height width"]:
    """Put a z-depth map on the canvas of its photo; nearest pixel, never blended; 0 outside and where unknown.

    Args:
        depth: may have another size than the photo, as long as it shows the same field of view.
        placement: of the photo.

    Raises:
        DataError: the depth has another aspect than the photo.
    """
    height, width = depth.shape
    stretch = (height * placement.source[1]) / (width * placement.source[0])
    if not 0.98 < stretch < 1.02:  # sensors round their sizes; more than that is another field of view
        photo_height, photo_width = placement.source
        raise DataError(
            f"A depth map of {width}x{height} does not belong to a photo of {photo_width}x{photo_height} pixels: "
            "expected the same aspect. Check that both are turned the same way."
        )
    placed = np.zeros(placement.canvas, dtype=np.float32)
    rows, columns = placement._on_canvas()
    source_rows = _nearest(rows, placement.offset[0], placement.resized[0], height)
    source_columns = _nearest(columns, placement.offset[1], placement.resized[1], width)
    taken = depth[np.ix_(source_rows, source_columns)].astype(np.float32)
    placed[rows, columns] = np.where(np.isfinite(taken) & (taken > 0), taken, 0)
    return torch.from_numpy(placed)


def _nearest(span: slice, offset: int, resized: int, source: int) -> np.ndarray:
    """The source pixel whose area holds the centre of each canvas pixel of `span`."""
    centres = (np.arange(span.start, span.stop) - offset + 0.5) * (source / resized)
    return np.clip(np.floor(centres).astype(np.int64), 0, source - 1)
