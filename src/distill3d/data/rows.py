"""One frame of a manifest, the frames that could not be used, and the order of names with numbers in them."""

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from distill3d.data.refs import Ref
from distill3d.files import PathLike

logger = logging.getLogger(__name__)

_PARTS = re.compile(r"\d+|\D")
_FIRST = {"/": 0, ".": 1}

Matrix = tuple[tuple[float, ...], ...]
"""A small matrix as it is stored: rows of Python floats (float64)."""
DepthKind = Literal["z", "distance"]


Scale = Literal["metric", "sfm", "relative", ""]
"""What a scene unit is: the metre; one unknown length that depth and poses of the scene share (structure from motion);
another unknown length in each depth map; or not known."""


@dataclass(frozen=True)
class Distortion:
    """How a lens departs from the pinhole that `intrinsics` describe."""

    model: str
    """COLMAP's name of the camera model, as in "OPENCV_FISHEYE"."""
    params: tuple[float, ...]
    """Its distortion parameters in COLMAP's order, without focal lengths and principal point."""


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One frame: where its picture is, and whatever is known about its camera.

    A frame with `intrinsics` or `depth` is read as stored, because those speak of stored pixels; any other photo is
    turned upright as its EXIF orientation says.
    """

    dataset: str
    """The kind of source it came from: the name of a file in `data/datasets`."""
    scene: str
    frame: int
    """Position in true time order within the scene; unique there, gaps allowed."""
    image: Ref
    width: int
    height: int
    """Size in pixels as it is read (upright)."""
    timestamp: float | None = None
    """Seconds, on any clock that the frames of the scene share."""
    ordered: bool = True
    """Whether neighbouring frame numbers are neighbours in time; False for collections of photos."""
    intrinsics: Matrix | None = None
    """3x3, in pixels of this picture, integer pixel centres."""
    distortion: Distortion | None = None
    """`None` for a pinhole."""
    world_from_camera: Matrix | None = None
    """4x4, OpenCV axes, in the world of the scene."""
    depth: Ref | None = None
    """In scene units, 0 = unknown; may have fewer pixels than the picture, over the same field of view."""
    depth_kind: DepthKind = "z"
    """Whether the file holds planar z-depth, or the distance along each ray (it is read as z-depth all the same)."""
    depth_mask: Ref | None = None
    """Where the depth may be trusted."""
    sky: Ref | None = None
    """Where the picture shows something infinitely far away."""
    mask: Ref | None = None
    """Where the picture may be used at all (not blacked out, not a moving person)."""
    split: str = ""
    """`train`, `val` or `test`; empty where the source does not say."""
    scale: Scale = ""
    licence: str = ""

    @property
    def is_upright(self) -> bool:
        """Whether the photo is turned upright by EXIF: not where a camera or depth map speaks of stored pixels."""
        return self.intrinsics is None and self.depth is None

    @property
    def is_metric(self) -> bool:
        """Whether the scene unit is the metre."""
        return self.scale == "metric"

    def images_only(self) -> "ManifestRow":
        """The same photo, and nothing that is known about it."""
        return replace(
            self,
            intrinsics=None,
            distortion=None,
            world_from_camera=None,
            depth=None,
            depth_kind="z",
            depth_mask=None,
            sky=None,
        )


@dataclass(frozen=True)
class Skipped:
    """Something that was found and left out, and why."""

    path: str
    reason: str


OnSkip = Callable[[Skipped], None]
"""Called with everything that a scan leaves out."""


def log_skip(skipped: Skipped) -> None:
    """The `OnSkip` of callers that keep no list."""
    logger.warning("skipped %s: %s", skipped.path, skipped.reason)


def natural_key(name: PathLike) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which `frame_2` stands before `frame_10`, whatever the letter case.

    Digits are compared as whole numbers (`999.9` before `1000.1`); `/`, then `.`, then numbers, then letters, so that
    `a/1.jpg` stands before `a-2/1.jpg` and `a.jpg` before `a1.jpg`. Names that differ only in leading zeros or case
    keep a fixed order.
    """
    text = os.fspath(name).replace(os.sep, "/")
    key = [
        (2, int(part), "") if part.isdecimal() else (_FIRST.get(part, 3), 0, part)
        for part in _PARTS.findall(text.casefold())
    ]
    return (*key, (-1, 0, text))


def matrix(values: Any, size: int) -> Matrix | None:
    """A square matrix as rows of floats; `None` stays `None`.

    Raises:
        ValueError: it has another shape, or an entry that is not finite.
    """
    if values is None:
        return None
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (size, size) or not np.isfinite(array).all():
        raise ValueError(f"a camera matrix has shape {array.shape} or a non-finite entry, expected {size}x{size}")
    return tuple(tuple(row) for row in array.tolist())
