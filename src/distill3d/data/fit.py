"""How photos of any size become images of one size. Light on imports, so that configurations can hold an `ImageFit`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from distill3d.errors import ConfigError, DataError

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True, kw_only=True)
class ImageFit:
    """The canvas that a set of photos shares. No photo is ever stretched out of its aspect."""

    long_side: int = 518
    """Pixels of the longer side of every photo after resizing."""
    multiple: int = 14
    """Height and width of the canvas are multiples of this: the patch size of the model."""
    mode: Literal["pad", "crop"] = "pad"
    """`pad` shows every photo whole, centred on a canvas that holds them all; `crop` fills the canvas of the most
    common shape and cuts off what stands over."""

    def __post_init__(self) -> None:
        if self.multiple < 1 or self.long_side < self.multiple:
            raise ConfigError(
                f"An image size of long_side={self.long_side} with multiple={self.multiple} cannot be; expected "
                "1 <= multiple <= long_side, as in long_side=518 with multiple=14."
            )
        if self.mode not in ("pad", "crop"):
            raise ConfigError(f"There is no image mode {self.mode!r}; expected 'pad' or 'crop'.")


def canvas_size(source_sizes: Sequence[Size] | Mapping[Size, int], fit: ImageFit) -> Size:
    """The one canvas for photos of these sizes, listed one by one or with how many there are of each.

    For `pad` it is the smallest box of whole multiples that holds every resized photo, so equal photos get fewer than
    `multiple` rows or columns of padding and a mix of portrait and landscape gets a square-ish canvas. For `crop` it is
    the most common resized shape (the first one among equals), rounded down to multiples.

    Raises:
        DataError: there are no photos.
    """
    if not source_sizes:
        raise DataError("There are no photos to find an image size for, expected at least one.")
    resized: Counter[Size] = Counter()
    for size, count in Counter(source_sizes).items():
        resized[long_side_size(size, fit.long_side)] += count
    if fit.mode == "pad":
        height, width = (max(size[axis] for size in resized) for axis in (0, 1))
        return _round_up(height, fit.multiple), _round_up(width, fit.multiple)
    ((height, width), _), *_ = resized.most_common(1)  # equal counts keep the order of appearance
    return max(height // fit.multiple, 1) * fit.multiple, max(width // fit.multiple, 1) * fit.multiple


def resized_size(source: Size, fit: ImageFit, canvas: Size) -> Size:
    """The size a photo is resized to before it is placed on `canvas`."""
    if fit.mode == "crop":
        scale = max(canvas[0] / source[0], canvas[1] / source[1])
        return max(canvas[0], round(source[0] * scale)), max(canvas[1], round(source[1] * scale))
    usual = long_side_size(source, fit.long_side)
    if usual[0] <= canvas[0] and usual[1] <= canvas[1]:
        return usual
    # The canvas was chosen for other photos: shrink until this one fits as well.
    scale = min(canvas[0] / source[0], canvas[1] / source[1])
    return (
        min(canvas[0], max(1, round(source[0] * scale))),
        min(canvas[1], max(1, round(source[1] * scale))),
    )


def long_side_size(source: Size, long_side: int) -> Size:
    """`source` with its longer side brought to `long_side`, at least one pixel thick."""
    scale = long_side / max(source)
    return max(1, round(source[0] * scale)), max(1, round(source[1] * scale))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
