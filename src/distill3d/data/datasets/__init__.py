"""Data sets and whatever users have: one file per layout on disk, found by its name.

To add one, write `datasets/<name>.py` with a `DATASET`, or name it in the entry points `distill3d.datasets` of another
package (`name = "package.module:DATASET"`). It says where its parts are and how one part becomes rows:

    def find(root: Path) -> Sequence[Path]:         # scene folders, tars, annotation files: quick, no file is opened
        return [folder.parent for folder in root.glob("*/cams")]

    def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
        for frame, path in enumerate(sorted(part.glob("images/*.jpg"), key=natural_key)):
            ...                                     # on_skip(Skipped(path, reason)) for what cannot be used
            yield ManifestRow(dataset="name", scene=part.name, frame=frame, image=Ref("..."), ...)

    DATASET = DatasetSpec(find=find, read=read, title="...", ...)

`find` returns nothing where the layout is another one: that is how the kind of a path is found out. A part is what
`manifest build` reads in one process, and reads again when a file in it has changed. Paths in a `Ref` are relative to
`root`. With `options.mode == "images_only"` a part must be readable where depth, poses and annotations are absent.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

from distill3d.data.rows import ManifestRow, OnSkip, log_skip
from distill3d.errors import ConfigError, DataError

ENTRY_POINTS = "distill3d.datasets"

Mode = Literal["images_only", "full"]


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """What is wanted of a data set."""

    mode: Mode = "full"
    """`images_only` leaves cameras and depth aside, and works where they are absent."""
    by_time: bool = False
    """Order the photos of a folder by when they were taken, as their EXIF says; those that do not say come last."""
    upright: bool = False
    """Turn the pictures of sets that store them as the sensor lay (ARKitScenes), with their cameras and depth."""
    rate: float = 2.0
    """Frames per second taken from a video."""
    max_frames: int | None = None
    """At most this many frames of each video."""
    at_least: int = 2
    """As many are taken of a video too short for `rate`, as far as it has them."""
    sharpest: bool = False
    """Take the sharpest frame near each chosen moment of a video, and none while the camera stands still."""

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise DataError(f"rate is {self.rate}, expected frames per second above 0, as in 2.")
        if self.max_frames is not None and self.max_frames < 1:
            raise DataError(f"max_frames is {self.max_frames}, expected 1 or more, or nothing for all.")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """All that the rest of the library needs to know of a layout."""

    find: Callable[[Path], Sequence[Path]]
    """Files or folders that can be read one by one, in natural order; none where the layout is another."""
    read: Callable[[Path, Path, ScanOptions, OnSkip], Iterator[ManifestRow]]
    """The rows of one part; called with (part, root, options, on_skip)."""
    title: str
    """What it is, for people."""
    role: Literal["own", "training", "evaluation"]
    """The user's own things, or a published set by what it is mostly used for here."""
    general: int = 0
    """How little a layout says about itself: where several fit a path, the smallest number is meant. Published sets and
    files with a format of their own have 0, formats that published sets use as well 1, photos 2, videos 3."""
    count: Callable[[Sequence[Path]], str] | None = None
    """What the parts hold, in words ("12 photos of 1 scene"); "3 scenes" if `None`."""
    modes: tuple[Mode, ...] = ("images_only", "full")
    url: str = ""
    """Where to get it."""
    size: str = ""
    """What has to be downloaded, as published."""
    licence: str = ""
    sharing: str = ""
    """Whether what is derived from it (depth, caches, weights) may be passed on."""

    def describe(self, parts: Sequence[Path]) -> str:
        """What parts hold, in words."""
        return counted(len(parts), "scene") if self.count is None else self.count(parts)

    def scan(
        self, root: Path, options: ScanOptions | None = None, *, on_skip: OnSkip = log_skip
    ) -> Iterator[ManifestRow]:
        """Every usable frame at or below `root`, part by part."""
        for part in self.find(root):
            yield from self.read(part, root, options or ScanOptions(), on_skip)


def counted(number: int, word: str) -> str:
    """A number of things, in words: "1 photo", "2 photos"."""
    return f"{number} {word}" + ("s" if number != 1 else "")


def names() -> list[str]:
    """Every layout that `get` knows, in alphabetical order."""
    own = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return sorted({*own, *(point.name for point in entry_points(group=ENTRY_POINTS))})


@functools.cache
def get(name: str) -> DatasetSpec:
    """The layout called `name`.

    Raises:
        ConfigError: there is none of that name, or an entry point does not lead to a `DatasetSpec`.
    """
    if name not in names():
        raise ConfigError(f"There is no data set {name!r}; choose one of: {', '.join(names())}.")
    points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
    spec = points[0].load() if points else importlib.import_module(f"{__name__}.{name}").DATASET
    if not isinstance(spec, DatasetSpec):
        raise ConfigError(f"The data set {name!r} gives a {type(spec).__name__}, expected a DatasetSpec.")
    return spec
