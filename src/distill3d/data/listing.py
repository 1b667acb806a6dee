"""What the data sets share in listing their frames: finding folders, reading headers, passing over what is broken."""

import contextlib
import itertools
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.decode import UNREADABLE, photo_size
from distill3d.data.fit import Size
from distill3d.data.refs import Ref
from distill3d.data.rows import ManifestRow, Matrix, OnSkip, Skipped, matrix, natural_key
from distill3d.errors import DataError
from distill3d.geometry.cameras import resize_intrinsics

Item = TypeVar("Item")

_MOST_FOLDERS = 200
_MOST_ENTRIES = 100_000
_BROKEN = (DataError, zipfile.BadZipFile, *UNREADABLE)
"""What a damaged annotation, camera file or header makes readers raise."""


def below(root: Path, *patterns: str, depth: int = 3, itself: bool = False) -> list[Path]:
    """What fits one of the patterns in `root` or in folders below it, in natural order.

    Of a level with more than 200 folders some are looked into first, and all only if one of these has what is looked
    for: every layout asks this of every path, and a tree may hold a million folders.

    Args:
        root: nothing is found where it is no folder.
        patterns: as for `Path.glob`, without `**`.
        depth: of the folders that are looked into; 0 is `root` alone.
        itself: `root` may be what the first folder of a pattern names.
    """
    if not root.is_dir():
        return []
    if itself:
        split = [pattern.partition("/") for pattern in patterns]
        rests = [rest for first, _, rest in split if fnmatch(root.resolve().name, first)]
        if inner := {path for rest in rests for path in (root.glob(rest) if rest else [root])}:
            return sorted(inner, key=natural_key)
    folders, found = [root], set[Path]()
    for level in range(depth + 1):
        if any(next(_visible(folder.glob(pattern), folder), None) for folder in folders for pattern in patterns):
            found |= {path for pattern in patterns for path in _visible(root.glob("*/" * level + pattern), root)}
        folders = _some_folders(folders)
    return sorted(found, key=natural_key)


def _visible(paths: Iterable[Path], root: Path) -> Iterator[Path]:
    return (path for path in paths if not any(name[0] == "." for name in path.relative_to(root).parts))


def _some_folders(above: list[Path]) -> list[Path]:
    """Folders in some folders, at most 200, of each about as many."""
    each = -(-_MOST_FOLDERS // max(len(above), 1))
    found: list[Path] = []
    for folder in above:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            inner = (entry.name for entry in itertools.islice(entries, _MOST_ENTRIES) if entry.is_dir())
            found += [folder / name for name in itertools.islice((name for name in inner if name[0] != "."), each)]
    return found[:_MOST_FOLDERS]


def inside(path: Path, root: Path) -> str:
    """A path as manifests spell it: relative to the root, with `/`."""
    return path.relative_to(root).as_posix()


def each_frame(
    items: Iterable[Item], make: Callable[[Item], ManifestRow], name: Callable[[Item], str], on_skip: OnSkip
) -> Iterator[ManifestRow]:
    """Make the row of each item; an item that cannot be used is passed over and told.

    Args:
        items: whatever stands for the frames of a part.
        make: gives the row, or raises what broken files make one raise.
        name: what the item is called where it has to be left out.
        on_skip: called with everything that is left out.
    """
    for item in items:
        try:
            row = make(item)
        except _BROKEN as error:
            said = error.args[0] if isinstance(error, KeyError) and error.args else error
            on_skip(Skipped(name(item), str(said) if isinstance(error, DataError) else f"{name(item)}: {said}"))
        else:
            yield row


def read_part(what: str, path: Path, reader: Callable[[Path], Item]) -> Item:
    """Read a file that a whole part depends on.

    Raises:
        DataError: it is missing or broken; the message says what it is for.
    """
    required(path, what)
    try:
        return reader(path)
    except _BROKEN as error:
        raise DataError(f"{path} ({what}) cannot be read: {error}. Copy it again.") from error


def required(path: Path, what: str) -> Path:
    """A file that is there and not empty.

    Raises:
        DataError: it is not; the message says what is missing.
    """
    if not path.is_file():
        raise DataError(f"There is no {what}: {path} does not exist. Download it, or use --mode images_only.")
    if path.stat().st_size == 0:
        raise DataError(f"The {what} is empty: {path} has 0 bytes. Download it again, or use --mode images_only.")
    return path


def photo_row(
    photo: Path, root: Path, *, dataset: str, scene: str, frame: int, size: Size | None = None, **known: Any
) -> ManifestRow:
    """The row of a photo that is a file of its own.

    Args:
        photo: the file.
        root: of the manifest.
        dataset: name of the layout.
        scene: name of the scene.
        frame: its place in time.
        size: (height, width) as stored, where known; read from the header otherwise.
        known: other fields of the row.

    Raises:
        DataError: the header cannot be read.
    """
    row = ManifestRow(dataset=dataset, scene=scene, frame=frame, image=Ref(inside(photo, root)), width=0, height=0)
    row = replace(row, **known)
    height, width = size if size is not None else photo_size(photo, upright=row.is_upright)
    return replace(row, height=height, width=width)


def as_matrix(values: Float[Tensor, "size size"] | np.ndarray) -> Matrix:
    """A camera matrix as rows of a manifest hold it.

    Raises:
        DataError: an entry is not finite (lost tracking, as a rule).
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise DataError("The pose or camera is not known: it has entries that are not finite.")
    result = matrix(numbers, len(values))
    assert result is not None
    return result


def scaled_pinhole(fx: float, fy: float, cx: float, cy: float, official: Size, size: Size) -> Matrix:
    """Intrinsics that a data set states for pictures of one size, for a copy in another (same view, whole pixels).

    Args:
        fx: focal length in pixels of the official size, likewise the others.
        fy: vertical focal length.
        cx: column of the principal point, integer pixel centres.
        cy: its row.
        official: (height, width) that the numbers belong to.
        size: (height, width) of the picture at hand.

    Raises:
        DataError: the copy shows another field of view.
    """
    stretch = (size[0] * official[1]) / (size[1] * official[0])
    if not 0.98 < stretch < 1.02:
        raise DataError(
            f"The picture is {size[1]}x{size[0]}, expected {official[1]}x{official[0]} or the same aspect: its camera "
            "is only known for those. Use --mode images_only."
        )
    stated = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return as_matrix(resize_intrinsics(stated, official, size))
