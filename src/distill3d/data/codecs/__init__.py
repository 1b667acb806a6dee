"""Decoders of single arrays: one small pure function of (span, options) each, found by the name in a `Ref`.

    image codecs    -> uint8 [height width 3], RGB
    depth codecs    -> float32 [height width], in scene units, 0 where unknown, infinite or not a number
    mask codecs     -> bool [height width]

To add one, write a function `(span: Span, **options) -> array` beside its kin and name it in the table of that file:
`IMAGE_CODECS`, `DEPTH_CODECS` or `MASK_CODECS`. Whatever it raises on damaged bytes becomes a `DataError` that names
the file; it must neither hang nor ask for more memory than the file's own header can justify. Every codec takes the
option `turns`: so many quarter turns, counter-clockwise, that the array makes after it was decoded.
"""

import importlib
import tokenize
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from distill3d.data.decode import UNREADABLE
from distill3d.data.refs import Span, parse_codec
from distill3d.errors import DataError

Family = Literal["IMAGE_CODECS", "DEPTH_CODECS", "MASK_CODECS"]

_MODULES = ("images", "png", "containers", "raw", "masks", "special")
_DAMAGED = (zipfile.BadZipFile, tokenize.TokenError)
"""What the readers of NumPy's formats raise besides."""
MAX_PIXELS = 200_000_000
"""A header that promises more is taken for damage."""


def decode(family: Family, spelled: str, span: Span) -> Any:
    """Decode a span by the codec of that name.

    Raises:
        DataError: no such codec, options it does not take, or a file that is missing or damaged.
    """
    name, options = parse_codec(spelled)
    turns = options.pop("turns", 0)
    function = _table(family).get(name)
    kind = family.removesuffix("_CODECS").lower()
    if function is None:
        known = ", ".join(sorted(_table(family)))
        raise DataError(f"There is no {kind} codec {name!r}; this distill3d knows {known}. Use a newer distill3d.")
    try:
        return np.ascontiguousarray(np.rot90(function(span, **options), int(turns)))
    except DataError:
        raise
    except (*UNREADABLE, *_DAMAGED) as error:
        if isinstance(error, ImportError):
            raise
        reason = str(error) if span.path.exists() else "there is no such file"
        what = {"IMAGE_CODECS": "picture", "DEPTH_CODECS": "depth map", "MASK_CODECS": "mask"}[family]
        raise DataError(f"Cannot read the {what} {span}: {reason}. Copy or make it again.") from error


def checked_size(height: int, width: int) -> tuple[int, int]:
    """Height and width as a header states them.

    Raises:
        ValueError: they are not those of any picture.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"its header states {width}x{height} pixels")
    return height, width


def known_depth(values: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Float32 depth in scene units from stored numbers: what is negative, infinite or not a number becomes 0.

    Raises:
        ValueError: it is not one number per pixel.
    """
    if values.ndim != 2 or values.dtype.kind not in "fui" or values.size == 0:
        raise ValueError(f"it holds {values.dtype} of shape {values.shape}, expected depth as [height, width]")
    with np.errstate(over="ignore", invalid="ignore"):
        depth = np.asarray(values * scale, dtype=np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _table(family: Family) -> Mapping[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for module in _MODULES:
        found |= getattr(importlib.import_module(f"{__name__}.{module}"), family, {})
    return found
