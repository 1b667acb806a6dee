"""Reading one photo of any common kind to upright 8-bit RGB."""

import contextlib
import functools
import importlib.util
import io
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from distill3d.data.fit import Size
from distill3d.data.refs import Span
from distill3d.errors import DataError
from distill3d.files import PathLike

_JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}
_HEIF_SUFFIXES = {".heic", ".heif"}
PHOTO_SUFFIXES = frozenset(
    {".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".jp2", ".gif", ".avif", ".tga"}
    | _JPEG_SUFFIXES
    | _HEIF_SUFFIXES
)
"""Names that are taken for photos, in lower case."""

# What the decoders of PIL raise on damaged bytes, found by feeding them such; RuntimeError comes from AVIF.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, RuntimeError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
# What EXIF orientation asks for, as one transposition each (1 is upright).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_RGB_MODES = frozenset({"RGB", "RGBA", "RGBX", "P"})


def photo_size(photo: PathLike | Span, *, upright: bool = True) -> Size:
    """(height, width) of a photo, from its header alone.

    Raises:
        DataError: it is no photo that can be read.
    """
    span = _span(photo)
    try:
        with _open(span) as image:
            width, height = image.size
            turned = upright and image.format != "TIFF" and _orientation(image) >= 5  # TIFF sizes are upright already
            return (width, height) if turned else (height, width)
    except UNREADABLE as error:
        raise _unreadable(span, error) from error


def is_gray(photo: PathLike | Span) -> bool:
    """Whether a picture has one channel; False where that cannot be told."""
    try:
        with _open(_span(photo)) as image:
            return len(image.getbands()) == 1 and image.mode != "P"
    except UNREADABLE:
        return False


def photo_time(photo: PathLike | Span) -> float | None:
    """When a photo was taken, in seconds since 1970 as if its clock had shown UTC; `None` if its EXIF does not say."""
    try:
        with _open(_span(photo)) as image:
            taken = image.getexif().get_ifd(ExifTags.IFD.Exif)
        moment = datetime.strptime(str(taken[ExifTags.Base.DateTimeOriginal]), "%Y:%m:%d %H:%M:%S")
        fraction = str(taken.get(ExifTags.Base.SubsecTimeOriginal, "")).strip()
        return moment.replace(tzinfo=UTC).timestamp() + (float(f"0.{fraction}") if fraction.isdecimal() else 0.0)
    except UNREADABLE:
        return None


def read_photo(
    photo: PathLike | Span, size: Size | None = None, *, upright: bool = True
) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a photo to 8-bit RGB, whatever it is stored as.

    16 bits are cut to 8, gray is repeated, transparency is laid on white, CMYK and palettes become RGB, and of several
    pictures the first is taken. RGB with an embedded colour profile (Display P3 of phones, Adobe RGB) becomes sRGB; a
    profile that cannot be used is left aside.

    Args:
        photo: a file, or a stretch of one.
        size: (height, width) to resize to, antialiased; JPEGs are then decoded at a fraction of their size where that
            does no harm.
        upright: apply EXIF orientation; `size` is then the upright size.

    Raises:
        DataError: it cannot be read; the message says why.
    """
    span = _span(photo)
    try:
        with _open(span) as image:
            box = None
            if size is not None and image.format in ("JPEG", "MPO"):
                turned = upright and _orientation(image) >= 5
                height, width = (size[1], size[0]) if turned else size
                reduced = image.draft(None, (2 * width, 2 * height))
                box = reduced[1] if reduced else None
            image.load()
            orientation = _orientation(image) if upright else 1  # asked for after loading: TIFFs turn themselves
            profile = image.info.get("icc_profile") if image.mode in _RGB_MODES else None
            rgb = _to_rgb(image)
    except UNREADABLE as error:
        raise _unreadable(span, error) from error
    if size is not None:
        height, width = (size[1], size[0]) if orientation >= 5 else size
        if (height, width) != (rgb.height, rgb.width) or box is not None:
            rgb = rgb.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    if profile:
        rgb = _to_srgb(rgb, profile)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return np.array(rgb)


def read_image(path: PathLike, *, upright: bool = True) -> Float[Tensor, "3 height width"]:
    """Decode a photo at its full size to RGB in [0, 1]; see `read_photo`.

    Raises:
        DataError: it cannot be read; the message names it and says why.
    """
    return to_unit_range(read_photo(path, upright=upright))


def to_unit_range(pixels: UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "3 height width"]:
    """8-bit pixels as a float32 image in [0, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)


def resize_pixels(
    pixels: UInt8[np.ndarray, "height width 3"], size: Size
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Resize decoded pixels, antialiased, by the rule of `Placement`."""
    if pixels.shape[:2] == size:
        return pixels
    resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.array(resized)


def _span(photo: PathLike | Span) -> Span:
    return photo if isinstance(photo, Span) else Span(Path(photo))


@contextlib.contextmanager
def _open(span: Span) -> Iterator[Image.Image]:
    """Open a photo without decoding it; HEIC as well where `pillow-heif` is installed."""
    if span.path.suffix.lower() in _HEIF_SUFFIXES and importlib.util.find_spec("pillow_heif") is not None:
        plugin: Any = importlib.import_module("pillow_heif")
        plugin.register_heif_opener()
    with span.open() as file, Image.open(file) as image:
        yield image


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except UNREADABLE:  # damaged metadata is no reason to refuse the picture
        return 1
    return value if value in _UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")


@functools.lru_cache(maxsize=8)
def _srgb_transform(profile: bytes) -> Any:
    """What turns 8-bit RGB of a profile into sRGB; `None` if it is sRGB already or no profile that can be used."""
    from PIL import ImageCms

    try:
        stored = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(stored).casefold():
            return None
        return ImageCms.buildTransform(stored, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (*UNREADABLE, ImageCms.PyCMSError):
        return None


def _to_srgb(rgb: Image.Image, profile: bytes) -> Image.Image:
    transform = _srgb_transform(profile)
    return rgb if transform is None else transform.apply(rgb)


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Gray of more than 8 bits: 16-bit integers by their full range, floats as [0, 1], or [0, 255] if any is larger."""
    values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    largest = values.max(initial=0)
    if mode == "F":
        values = values * (255 if largest <= 1 else 1)
    elif mode != "I" or largest > 255:  # "I" is 32 bits wide and may hold anything
        values = values / 257
    return values.round().clip(0, 255).astype(np.uint8)


def _unreadable(span: Span, error: BaseException) -> DataError:
    """Say in words why a file is no usable photo."""
    path = span.path
    if not path.exists():
        return DataError(f"{path} does not exist. Check the path.")
    if path.is_dir():
        return DataError(f"{path} is a folder, expected a photo.")
    if isinstance(error, PermissionError):
        return DataError(f"{path} may not be read: permission denied. Change its permissions.")
    if path.stat().st_size == 0:
        return DataError(f"{path} is empty (0 bytes), expected a photo. Copy it again.")
    if path.suffix.lower() in _HEIF_SUFFIXES:
        return DataError(
            f"{path} is a HEIC photo, which needs the package pillow-heif (pip install pillow-heif); "
            "or export it as JPEG."
        )
    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{span} is not a photo that can be recognised. Export it as JPEG or PNG.")
    if isinstance(error, Image.DecompressionBombError):
        return DataError(f"{span} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels. Scale it down first.")
    return DataError(f"{span} cannot be decoded ({error}); it may be cut short or damaged. Copy it again.")
