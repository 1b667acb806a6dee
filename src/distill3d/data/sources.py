"""Finding out what a path holds: one positional path, of which the kind is found and said."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill3d.data import datasets
from distill3d.data.datasets import DatasetSpec, ScanOptions, archive, counted, photos
from distill3d.data.fit import ImageFit
from distill3d.data.groups import load_rows
from distill3d.data.images import LoadedViews, load_views
from distill3d.data.rows import ManifestRow, OnSkip, Skipped, log_skip, natural_key
from distill3d.data.video import spread
from distill3d.data.walk import visible_files, walked_once
from distill3d.errors import DataError
from distill3d.files import PathLike

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """What was found at a path."""

    dataset: str
    """Name of the layout."""
    path: Path
    root: Path
    """Paths in a manifest of this source are relative to it."""
    parts: tuple[Path, ...]
    """Files and folders that are read one by one."""

    @property
    def spec(self) -> DatasetSpec:
        """The layout."""
        return datasets.get(self.dataset)

    def describe(self) -> str:
        """In words: "13 photos of 1 scene in photos/"."""
        spec = self.spec
        kind = "" if spec.role == "own" else f" of {spec.title}"
        return f"{spec.describe(self.parts)}{kind} in {self.path}"

    def scan(self, options: ScanOptions | None = None, *, on_skip: OnSkip = log_skip) -> Iterator[ManifestRow]:
        """List its frames."""
        for part in self.parts:
            yield from self.spec.read(part, self.root, options or ScanOptions(), on_skip)


def find_source(path: PathLike, dataset: str | None = None) -> Source:
    """Look at a path and say what it holds.

    Args:
        path: a file or folder.
        dataset: name of the layout, where it is known or where several would fit; found out if `None`.

    Raises:
        ConfigError: there is no layout of that name.
        DataError: there is nothing at the path that could be used, or it could be two things at once.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"{path} does not exist; expected a folder of photos, a folder of scenes or a video. Check the path."
        )
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise DataError(f"{path} may not be read: permission denied. Change its permissions.")
    if dataset is not None:
        spec = datasets.get(dataset)
        if parts := spec.find(path):
            return _told(Source(dataset, path, _root(path), tuple(parts)))
        raise DataError(f"{path} does not look like {spec.title}. Check the path, or leave the kind to be found out.")
    with walked_once():
        return _find_out(path)


def _find_out(path: Path) -> Source:
    by_rank: dict[int, list[str]] = {}
    for name in datasets.names():
        by_rank.setdefault(datasets.get(name).general, []).append(name)
    for rank in sorted(by_rank):
        found = [(name, parts) for name in by_rank[rank] if (parts := datasets.get(name).find(path))]
        if len(found) > 1:
            raise DataError(
                f"{path} could be {' or '.join(name for name, _ in found)}. Say which it is with --dataset NAME."
            )
        for name, parts in found:
            return _told(Source(name, path, _root(path), tuple(parts)))
    raise DataError(_nothing_in(path))


def _root(path: Path) -> Path:
    """What the paths of a manifest start from; a file that describes its folder stands for the folder."""
    return path.parent if path.is_file() else path


def load_source(
    path: PathLike,
    fit: ImageFit,
    *,
    rate: float = 2.0,
    max_views: int | None = None,
    at_least: int = 2,
) -> LoadedViews:
    """Read the photos of one place, from whatever holds one: a folder of photos, a video, a project with cameras.

    Args:
        path: what to read; photos come in natural order of their names.
        fit: how they are laid out on one canvas.
        rate: frames per second, for a video.
        max_views: if there are more, this many are spread over all of them.
        at_least: how many readable photos the caller needs.

    Returns:
        The photos, with the intrinsics and poses (in the frame of view 0) that all of them have, never with depth.

    Raises:
        DataError: nothing usable, several scenes or videos, or fewer than `at_least` photos.
    """
    source = find_source(path)
    if len(source.parts) > 1:
        raise DataError(
            f"Found {source.describe()}, expected the photos of one place. Give one of the folders or files in it."
        )
    if source.dataset == "photos":
        files = photos.list_photos(source.parts[0])
        names = {file.stem for file in files}
        files = [file for file in files if len(files) == 1 or photos.why_no_photo(file, names) is None]
        if max_views is not None:
            files = [files[index] for index in spread(len(files), max_views)]
        return load_views(files, fit, at_least=at_least)
    lost: list[Skipped] = []
    options = ScanOptions(rate=rate, max_frames=max_views, at_least=at_least)
    rows = list(source.scan(options, on_skip=lost.append))
    scenes = sorted({row.scene for row in rows}, key=natural_key)
    if len(scenes) > 1:
        raise DataError(
            f"Found {len(scenes)} scenes ({', '.join(scenes[:3])}, ...) in {path}, expected the photos of one place. "
            "Give one of the folders in it."
        )
    if source.dataset == "video" and 0 < len(rows) < at_least:
        raise DataError(f"{path} gives {counted(len(rows), 'frame')}, expected at least {at_least}. Film for longer.")
    if max_views is not None:
        rows = [rows[index] for index in spread(len(rows), max_views)]
    lost = [Skipped(str(source.root / entry.path), entry.reason) for entry in lost]
    return load_rows(rows, source.root, fit, at_least=at_least, skipped=lost)


def _told(source: Source) -> Source:
    logger.info("found %s", source.describe())
    return source


def _nothing_in(path: Path) -> str:
    expected = (
        "expected a folder of photos (JPEG, PNG, WebP, TIFF, HEIC, ...), a folder of scenes or a video (MP4, ...)"
    )
    if path.is_file():
        no_photo = f"{path} is neither a photo nor a video nor a table of frames; {expected}. Check the name."
        return archive.why_nothing(path) or no_photo
    kinds = Counter(file.suffix.lower() or "no suffix" for file in visible_files(path))
    if not kinds:
        return f"{path} is empty; {expected}. Check the path."
    held = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(4))
    return f"Found no photos or videos in {path}, only {sum(kinds.values())} other files ({held}); {expected}."
