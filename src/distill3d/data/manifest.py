"""Manifests: built from whatever lies at a path, checked against it, saved and loaded."""

import logging
from dataclasses import replace
from pathlib import Path

from distill3d.data.datasets.annotated import read_depth
from distill3d.data.decode import photo_size, read_photo
from distill3d.data.rows import ManifestRow as ManifestRow
from distill3d.data.rows import Skipped
from distill3d.data.sources import find_source
from distill3d.data.table import Manifest as Manifest
from distill3d.data.table import load_manifest as load_manifest
from distill3d.errors import DataError
from distill3d.files import PathLike
from distill3d.progress import track

logger = logging.getLogger(__name__)


def build_manifest(
    path: PathLike,
    *,
    test_fraction: float = 0.0,
    verify: bool = False,
    rate: float = 2.0,
    max_frames: int | None = None,
) -> tuple[Manifest, tuple[Skipped, ...]]:
    """List every usable frame at a path, whatever kind of source it is.

    Args:
        path: a folder of photos, of scene folders, of annotated scenes or of videos, or a single file.
        test_fraction: share of the frames that become the split "test", spread evenly over each scene; for sources
            that state no split themselves. All others are "train".
        verify: decode every photo and depth map; otherwise photos are judged by their headers.
        rate: frames per second taken from a video.
        max_frames: at most this many frames from each video.

    Returns:
        The manifest, and what was left out and why.

    Raises:
        DataError: nothing usable was found, or `test_fraction` is not in [0, 1).
    """
    if not 0 <= test_fraction < 1:
        raise DataError(f"test_fraction is {test_fraction}, expected at least 0 and below 1, as in 0.1.")
    source = find_source(path)
    skipped: list[Skipped] = []
    rows = []
    scanned = source.scan(rate=rate, max_frames=max_frames, on_skip=skipped.append)
    total = source.num_items if source.kind == "photos" else None
    for row in track(scanned, "listing frames", total, unit="frames"):
        problem = _find_problem(row, source.root) if verify else None
        if problem is None:
            rows.append(row)
        else:
            skipped.append(Skipped(row.image, problem))
    if not rows:
        reasons = "".join(f"\n  {entry.reason}" for entry in skipped[:5])
        raise DataError(f"Found {source.describe()}, but none can be used. What was left out:{reasons}")
    return Manifest.from_rows(_fill_splits(rows, test_fraction), source.root), tuple(skipped)


def check_manifest(manifest: Manifest) -> tuple[Skipped, ...]:
    """Decode every photo and depth map that a manifest names, and list those that are missing, damaged or changed.

    Frames of videos are checked for the presence of the video alone.
    """
    found = []
    for row in track(manifest.rows(), "checking frames", len(manifest), unit="frames"):
        problem = _find_problem(row, manifest.root)
        if problem is not None:
            found.append(Skipped(row.image, problem))
    return tuple(found)


def _find_problem(row: ManifestRow, root: Path) -> str | None:
    """Why a frame cannot be used, if so."""
    if row.video_frame is not None:
        return None if (root / row.image).is_file() else f"{root / row.image} does not exist."
    try:
        size = photo_size(root / row.image, upright=row.is_upright)
        if size != (row.height, row.width):
            return f"{root / row.image} is {size[1]}x{size[0]}, the manifest says {row.width}x{row.height}."
        read_photo(root / row.image, (8, 8), upright=row.is_upright)
        if row.depth is not None:
            read_depth(root / row.depth)
    except DataError as error:
        return str(error)
    return None


def _fill_splits(rows: list[ManifestRow], test_fraction: float) -> list[ManifestRow]:
    if any(row.split for row in rows):
        if test_fraction:
            logger.info("test_fraction is left aside: the scenes say themselves which frames are for testing")
        return [row if row.split else replace(row, split="train") for row in rows]
    counts: dict[str, int] = {}
    filled = []
    for row in rows:
        place = counts[row.scene] = counts.get(row.scene, 0) + 1
        # Test frames stand where place * fraction passes a half, hence never first in a scene unless most are test.
        is_test = int(place * test_fraction + 0.5) > int((place - 1) * test_fraction + 0.5)
        filled.append(replace(row, split="test" if is_test else "train"))
    return filled
