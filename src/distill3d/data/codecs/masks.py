"""Masks: pictures of which some values mean yes, and depth maps of which some values mean sky."""

import numpy as np
from jaxtyping import Bool
from PIL import Image

from distill3d.data.codecs import checked_size, decode
from distill3d.data.refs import Span

Mask = Bool[np.ndarray, "height width"]


def mask(span: Span, *, above: float = 0.0, below: float = np.inf) -> Mask:
    """A picture of one channel (the first, of several): True where above < value < below."""
    with span.open() as file, Image.open(file) as picture:
        checked_size(picture.height, picture.width)
        values = np.asarray(picture)
    return _between(values if values.ndim == 2 else values[..., 0], above, below)


def mask_of_depth(span: Span, *, of: str, above: float = 0.0, below: float = np.inf) -> Mask:
    """A depth map, read by the depth codec `of`: True where above < depth < below."""
    return _between(decode("DEPTH_CODECS", of, span), above, below)


def _between(values: np.ndarray, above: float, below: float) -> Mask:
    return np.asarray((values > above) & (values < below))


MASK_CODECS = {"mask": mask, "mask-of-depth": mask_of_depth}
