"""Pictures made for the tests of `distill3d.data`."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colour picture, [height width 3] of 8 bits, different for each seed."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(4 * x + 3 * y * (channel + 1) + seed + channel) for channel in range(3)]
    return ((np.stack(waves, axis=-1) + 1) * 127).astype(np.uint8)


def save_picture(path: Path, height: int = 24, width: int = 32, seed: int = 0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(height, width, seed)).save(path, **options)
    return path


def upright_tag(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
