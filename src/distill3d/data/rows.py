"""One frame of a manifest, the frames that could not be used, and the order of names with numbers in them."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distill3d.files import PathLike

logger = logging.getLogger(__name__)

Matrix = tuple[tuple[float, ...], ...]
"""A small matrix as it is stored: rows of Python floats (float64)."""


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One frame: where its picture is, and whatever is known about its camera.

    Paths are relative to the root of the manifest and use `/`. A frame with `intrinsics` or `depth` is read as stored,
    because those speak of stored pixels; any other photo is turned upright as its EXIF orientation says.
    """

    dataset: str
    """The kind of source it came from: the name of a file in `data/datasets`."""
    scene: str
    frame: int
    """Position in true numeric order within the scene; unique there, gaps allowed."""
    image: str
    """Photo, or the video that holds `video_frame`."""
    width: int
    height: int
    """Size in pixels as it is read (upright)."""
    video_frame: int | None = None
    intrinsics: Matrix | None = None
    """3x3, in pixels of this picture, integer pixel centres."""
    world_from_camera: Matrix | None = None
    """4x4, OpenCV axes, in the world of the scene."""
    depth: str | None = None
    """Planar z-depth: `.npy` (float) or 16-bit `.png`; 0 = unknown."""
    depth_unit: float = 1.0
    """Scene units per stored step of depth."""
    split: str = ""
    """`train`, `val` or `test`; empty where the source does not say."""
    is_metric: bool = False
    """Whether the scene unit is the metre."""
    licence: str = ""

    @property
    def is_upright(self) -> bool:
        """Whether the photo is turned upright by EXIF: not where a camera or depth map speaks of stored pixels."""
        return self.intrinsics is None and self.depth is None


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
    text = Path(name).as_posix()
    key: list[tuple[int, int, str]] = []
    for part in re.findall(r"\d+|\D", text.casefold()):
        if part.isdecimal():
            key.append((2, int(part), ""))
        else:
            key.append(({"/": 0, ".": 1}.get(part, 3), 0, part))
    return (*key, (-1, 0, text))
