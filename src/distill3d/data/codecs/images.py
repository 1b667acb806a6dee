"""Photos of any common kind, and pictures inside other files."""

from jaxtyping import UInt8
from numpy import ndarray

from distill3d.data.decode import read_photo
from distill3d.data.refs import Span


def image(span: Span) -> UInt8[ndarray, "height width 3"]:
    """JPEG, PNG, HEIC, ...: pixels as stored, EXIF orientation left aside."""
    return read_photo(span, upright=False)


IMAGE_CODECS = {"image": image}
