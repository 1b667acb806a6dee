"""Depth in PNG files: 16-bit steps, bit patterns of floats, logarithmic steps."""

import numpy as np
from jaxtyping import Float
from PIL import Image

from distill3d.data.codecs import checked_size, known_depth
from distill3d.data.refs import Span

Depth = Float[np.ndarray, "height width"]


def png16(span: Span, *, scale: float = 1.0, invalid: int = 0) -> Depth:
    """16-bit gray, times `scale` scene units; 0 and `invalid` are unknown.

    Raises:
        ValueError: it has 8 bits or colours: a preview, not a depth map.
    """
    stored = _gray16(span)[0]
    return known_depth(np.where(stored == invalid, 0, stored), scale)


def float16_png(span: Span, *, scale: float = 1.0) -> Depth:
    """16-bit gray whose bits are those of an IEEE half (CO3D), times `scale`."""
    return known_depth(_gray16(span)[0].astype(np.uint16).view(np.float16).astype(np.float32), scale)


def float32_png(span: Span, *, far: float = 0.0) -> Depth:
    """Four 8-bit channels that are the bytes of a little-endian float, in OpenCV's order BGRA (TartanAir v2).

    Args:
        span: the file.
        far: depth from here on is sky, hence unknown; 0 keeps everything.
    """
    with span.open() as file, Image.open(file) as picture:
        checked_size(picture.height, picture.width)
        channels = np.asarray(picture)
    if channels.ndim != 3 or channels.shape[2] != 4 or channels.dtype != np.uint8:
        raise ValueError(f"it holds {channels.dtype} of shape {channels.shape}, expected four channels of 8 bits")
    depth = np.ascontiguousarray(channels[..., [2, 1, 0, 3]]).view("<f4")[..., 0]
    return known_depth(np.where(depth >= far, 0, depth) if far else depth)


def log_png(span: Span) -> Depth:
    """16-bit steps between the `near` and `far` of the PNG's own text (the bundle that MoGe is evaluated on).

    0 is unknown and 65535 infinitely far; between them depth is near^(1 - t) far^t with t = (value - 1) / 65533, times
    `unit` where that is given.
    """
    stored, text = _gray16(span)
    near, far, unit = float(text["near"]), float(text["far"]), float(text.get("unit", 1.0))
    if not 0 < near <= far < np.inf:
        raise ValueError(f"its near is {near} and its far {far}")
    t = (stored - 1) / 65533
    return known_depth(np.where((stored > 0) & (stored < 65535), near ** (1 - t) * far**t * unit, 0))


def _gray16(span: Span) -> tuple[np.ndarray, dict[str, str]]:
    """The steps as int64 (so that sums cannot wrap), and the texts of the PNG."""
    with span.open() as file, Image.open(file) as picture:
        checked_size(picture.height, picture.width)
        mode = picture.mode
        stored = np.asarray(picture)
        text = dict(getattr(picture, "text", {}))
    if not mode.startswith("I") or stored.ndim != 2:
        raise ValueError(f"it is a picture of kind {mode}, expected 16-bit gray: it may be a preview of the depth map")
    if stored.max(initial=0) > 65535 or stored.min(initial=0) < 0:
        raise ValueError("it has more than 16 bits")
    return stored.astype(np.int64), text


DEPTH_CODECS = {"png16": png16, "float16-png": float16_png, "float32-png": float32_png, "log-png": log_png}
