"""Photos as the DUSt3R family was trained on them: scaled by one side, cut at the centre to whole patches."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from distill3d.data.fit import Size
from distill3d.data.placement import Placement, place_image
from distill3d.errors import DataError


def centre_crop(source: Size, side: int = 512, *, multiple: int = 16, allow_square: bool = False) -> Placement:
    """Where DUSt3R, MASt3R, CUT3R and Fast3R put a photo of size `source`.

    The longer side becomes `side` and both are cut to multiples. A photo that is then exactly square loses a quarter of
    its height (unless `allow_square`), because those networks never saw square images.

    Args:
        source: (height, width) of the upright photo.
        side: 512 for most weights. At 224, for the first ones, the *shorter* side becomes 224 and the crop is square.
        multiple: the patch size.
        allow_square: leave square photos whole.

    Raises:
        DataError: a photo so thin that no patch is left.
    """
    longer = max(source)
    target = round(side * longer / min(source)) if side == 224 else side
    resized = (round(source[0] * target / longer), round(source[1] * target / longer))
    if side == 224:
        canvas = (2 * (min(resized) // 2),) * 2
    else:
        height, width = (2 * (length // 2) // multiple * multiple for length in resized)
        if resized[0] == resized[1] and not allow_square:
            height = width * 3 // 4 // multiple * multiple
        canvas = (height, width)
    if min(canvas) < multiple:
        raise DataError(
            f"A photo of {source[0]}x{source[1]} pixels becomes {resized[0]}x{resized[1]}, thinner than a patch of "
            f"{multiple}. Cut it into less extreme shapes, or take a larger side."
        )
    offset = tuple(size // 2 - length // 2 for size, length in zip(canvas, resized, strict=True))
    return Placement(source, resized, (offset[0], offset[1]), canvas)


def place_centre_crop(
    pixels: UInt8[np.ndarray, "source_height source_width 3"], placement: Placement
) -> UInt8[np.ndarray, "height width 3"]:
    """Resize a decoded photo as the reference loaders do (Lanczos to shrink, else bicubic) and cut it."""
    height, width = placement.resized
    shrinks = max(pixels.shape[:2]) > max(height, width)
    method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    resized = np.array(Image.fromarray(pixels).resize((width, height), method))
    return place_image(resized, placement)
