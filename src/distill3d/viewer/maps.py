"""Depth, confidence and error maps as pictures: one colormap each, stated ranges, grey for unknown."""

import base64
import functools
import io
from collections.abc import Iterable
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

Kind = Literal["depth", "confidence", "error"]

_COLORMAPS: dict[str, str] = {"depth": "viridis_r", "confidence": "cividis", "error": "inferno"}
UNKNOWN = 255
"""The level of pixels without a value; they are left transparent, so that the page's hatching shows through."""


@functools.cache
def ramp(kind: Kind) -> UInt8[np.ndarray, "256 3"]:
    """Give the 256 sRGB colours of a kind of map, from its lowest to its highest value."""
    import matplotlib  # heavy, and only needed once a picture is made

    colors: np.ndarray = matplotlib.colormaps[_COLORMAPS[kind]](np.arange(256), bytes=True)[:, :3]
    return colors


def usable(values: Float[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """Say where a map of positive quantities (depth, confidence) is known: finite and above 0."""
    return np.asarray(np.isfinite(values) & (values > 0), dtype=bool)


def shared_range(maps: Iterable[Float[np.ndarray, "_ _"]], *, percent: float = 1.0) -> tuple[float, float] | None:
    """Find one range for maps that are to be compared, from their pooled values without the extreme `percent`.

    None where no map has a known value.
    """
    values = [map_[usable(map_)] for map_ in maps]
    pooled = np.concatenate(values) if values else np.empty(0)
    if pooled.size == 0:
        return None
    low, high = np.percentile(pooled, [percent, 100 - percent])
    return float(low), float(max(high, low * (1 + 1e-3)))


def map_levels(
    values: Float[np.ndarray, "height width"],
    bounds: tuple[float, float] | None,
    *,
    log: bool = False,
    valid: Bool[np.ndarray, "height width"] | None = None,
) -> UInt8[np.ndarray, "height width"]:
    """Spread a map over 0..254 between two bounds; 255 (`UNKNOWN`) where not finite, invalid or without bounds.

    With `log` the levels are spread over the logarithm (both bounds must be positive).
    """
    known = np.isfinite(values) if valid is None else np.isfinite(values) & valid
    if log:
        known &= values > 0
    levels = np.full(values.shape, UNKNOWN, dtype=np.uint8)
    if bounds is None or not known.any():
        return levels
    low, high = np.log(bounds) if log else np.asarray(bounds, dtype=np.float64)
    shown = np.log(values[known]) if log else values[known].astype(np.float64)
    level = np.clip((shown - low) / max(high - low, 1e-12), 0, 1)
    levels[known] = (level * (UNKNOWN - 1)).round().astype(np.uint8)
    return levels


def colorize(levels: UInt8[np.ndarray, "height width"], kind: Kind) -> UInt8[np.ndarray, "height width 4"]:
    """Paint levels as RGBA; unknown is transparent."""
    picture = np.zeros((*levels.shape, 4), dtype=np.uint8)
    known = levels != UNKNOWN
    picture[known, :3] = ramp(kind)[levels[known]]
    picture[known, 3] = 255
    return picture


def map_uri(levels: UInt8[np.ndarray, "height width"], kind: Kind) -> str:
    """Give levels as a data URI: a PNG with a palette, a third of the size of an RGBA one."""
    image = Image.frombytes("P", levels.shape[::-1], levels.tobytes())
    image.putpalette(ramp(kind).tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True, transparency=UNKNOWN)
    return _data_uri("image/png", stream.getvalue())


def confidence_levels(
    confidence: Float[np.ndarray, "*shape"],
) -> tuple[UInt8[np.ndarray, "*shape"], tuple[float, float]]:
    """Map confidence to 0..255 on a log scale between its 1st and 99th percentile, which are returned too."""
    known = np.isfinite(confidence) & (confidence > 0)
    if not known.any():
        return np.zeros(confidence.shape, dtype=np.uint8), (1.0, 1.0)
    low, high = np.percentile(confidence[known], [1, 99])
    span = max(float(np.log(high) - np.log(low)), 1e-6)
    level = (np.log(np.where(known, confidence, low)) - np.log(low)) / span
    return (level.clip(0, 1) * 255).round().astype(np.uint8), (float(low), float(high))


def median_scale(
    depth: Float[np.ndarray, "*shape"],
    reference: Float[np.ndarray, "*shape"],
    valid: Bool[np.ndarray, "*shape"] | None = None,
) -> float:
    """Find the factor that brings a depth map to the reference: the median ratio where both are known, else 1."""
    both = usable(depth) & usable(reference)
    if valid is not None:
        both &= valid
    return float(np.median(reference[both] / depth[both])) if both.any() else 1.0


def relative_error(
    depth: Float[np.ndarray, "height width"], reference: Float[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width"]:
    """|depth - reference| / reference, NaN where either is unknown."""
    both = usable(depth) & usable(reference)
    error = np.full(depth.shape, np.nan, dtype=np.float32)
    error[both] = np.abs(depth[both] - reference[both]) / reference[both]
    return error


def shrink(image: UInt8[np.ndarray, "height width 3"], long_side: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Make a photo smaller for the page; smaller ones stay as they are."""
    height, width = image.shape[:2]
    factor = long_side / max(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def png_uri(image: UInt8[np.ndarray, "height width channels"]) -> str:
    """Give a PNG as a data URI; maps keep every pixel."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG", optimize=True)
    return _data_uri("image/png", stream.getvalue())


def jpeg_uri(image: UInt8[np.ndarray, "height width 3"], *, quality: int = 85) -> str:
    """Give a JPEG as a data URI, for photos."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=quality, optimize=True)
    return _data_uri("image/jpeg", stream.getvalue())


def color_bar_uri(kind: Kind) -> str:
    """Give the ramp of a kind as an image of one row, to be stretched."""
    return png_uri(ramp(kind)[None])


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
