"""Manifests: built from whatever lies at a path, part by part, and brought up to date when something has changed."""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from distill3d.data import datasets
from distill3d.data.columns import to_table
from distill3d.data.datasets import ScanOptions
from distill3d.data.rows import ManifestRow as ManifestRow
from distill3d.data.rows import Skipped
from distill3d.data.scenes import scene_table
from distill3d.data.sources import Source, find_source
from distill3d.data.table import Manifest as Manifest
from distill3d.data.table import load_manifest as load_manifest
from distill3d.data.verify import find_problem
from distill3d.data.walk import visible_files
from distill3d.errors import DataError
from distill3d.files import PathLike
from distill3d.progress import track

logger = logging.getLogger(__name__)

_ALONE_SECONDS = 2.0
"""Work that one process has done by then is not worth starting others for."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions(ScanOptions):
    """What is wanted of a manifest."""

    test_fraction: float = 0.0
    """Share of the frames that become the split "test", spread evenly over each scene; for sources that state no split
    themselves. All others are "train"."""
    verify: bool = False
    """Decode every photo and depth map; otherwise photos are judged by their headers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.test_fraction < 1:
            raise DataError(f"test_fraction is {self.test_fraction}, expected at least 0 and below 1, as in 0.1.")


@dataclass(frozen=True)
class Built:
    """A manifest, and how it came to be."""

    manifest: Manifest
    skipped: tuple[Skipped, ...]
    """What was left out and why, in the parts that were read this time."""
    source: Source
    read: int
    """Parts that are new or have changed."""
    kept: int
    """Parts that are as they were."""
    dropped: int
    """Parts that are gone."""


def build_manifest(
    path: PathLike,
    *,
    dataset: str | None = None,
    previous: Manifest | None = None,
    workers: int = 1,
    **options: object,
) -> tuple[Manifest, tuple[Skipped, ...]]:
    """List every usable frame at a path; see `build`, of which this gives the manifest and what was left out."""
    built = build(path, BuildOptions(**options), dataset=dataset, previous=previous, workers=workers)  # type: ignore[arg-type]
    return built.manifest, built.skipped


def build(
    path: PathLike,
    options: BuildOptions | None = None,
    *,
    dataset: str | None = None,
    previous: Manifest | None = None,
    workers: int = 1,
) -> Built:
    """List every usable frame at a path, whatever kind of source it is.

    Args:
        path: a folder of photos, of scene folders or of videos, a data set, a project with cameras, or a file.
        options: what is wanted.
        dataset: name of the layout; found out if `None`.
        previous: an earlier manifest of the same path: parts that have not changed since are taken from it, those that
            are gone are dropped.
        workers: processes that read parts. More than one only where the program guards its start with
            `if __name__ == "__main__"`.

    Raises:
        DataError: nothing usable was found.
    """
    options = options or BuildOptions()
    source = find_source(path, dataset)
    wanted = {part.relative_to(source.root).as_posix(): part for part in source.parts}
    stamps = {name: _stamp(part, source.dataset, options) for name, part in wanted.items()}
    kept = _unchanged(previous, stamps) if previous is not None else {}
    jobs = [(source.dataset, part, source.root, options) for name, part in wanted.items() if name not in kept]
    tables, skipped = list(kept.values()), []
    for table, lost in track(_read_parts(jobs, workers), "listing scenes", len(jobs), unit="parts"):
        tables.append(table)
        skipped += lost
    tables, twice = _without_twins(tables)
    skipped += twice
    if not sum(len(table) for table in tables):
        reasons = "".join(f"\n  {entry.reason}" for entry in skipped[:5])
        raise DataError(f"Found {source.describe()}, but none can be used. What was left out:{reasons}")
    parts = [*kept, *(name for name in wanted if name not in kept)]
    manifest = Manifest.from_tables(tables, source.root)
    origins = {
        scene: (name, stamps[name])
        for name, table in zip(parts, tables, strict=True)
        for scene in table["scene"].unique().to_pylist()
    }
    gone = _parts_of(previous) - wanted.keys() if previous is not None else set()
    return Built(
        replace(manifest, known_scenes=scene_table(manifest.table, origins)),
        tuple(skipped),
        source,
        read=len(jobs),
        kept=len(kept),
        dropped=len(gone),
    )


_Job = tuple[str, Path, Path, BuildOptions]


def _read_parts(jobs: Sequence[_Job], workers: int) -> Iterator[tuple[pa.Table, list[Skipped]]]:
    """Read parts in their order: the first ones here, the rest by other processes if there is much left."""
    start, done = time.monotonic(), 0
    while done < len(jobs) and (workers < 2 or time.monotonic() - start < _ALONE_SECONDS):
        yield _read_part(jobs[done])
        done += 1
    rest = jobs[done:]
    if rest:
        # Not forked: the threads of numerical libraries do not survive that.
        with ProcessPoolExecutor(min(workers, len(rest)), get_context("spawn")) as pool:
            yield from pool.map(_read_part, rest, chunksize=max(1, min(16, len(rest) // (4 * workers))))


def _read_part(job: _Job) -> tuple[pa.Table, list[Skipped]]:
    dataset, part, root, options = job
    skipped: list[Skipped] = []
    rows = []
    try:
        for row in datasets.get(dataset).read(part, root, options, skipped.append):
            problem = _unspeakable(row)
            if problem is None and options.verify:
                problem = find_problem(row, root)
            if problem is None:
                rows.append(row)
            else:
                skipped.append(Skipped(_spelled(row.image.path), problem))
    except (DataError, OSError) as error:  # one bad part among thousands
        rows = []
        skipped.append(Skipped(part.relative_to(root).as_posix(), str(error)))
    return to_table(_fill_splits(rows, options.test_fraction)), skipped


def _unspeakable(row: ManifestRow) -> str | None:
    """Some file systems allow names that are no text; tables do not."""
    if _spelled(row.image.path) == row.image.path:
        return None
    return f"its name is not valid Unicode: {_spelled(row.image.path)}. Rename it."


def _spelled(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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


def _stamp(part: Path, dataset: str, options: BuildOptions) -> str:
    """A hash of everything that the rows of a part depend on, without opening a file."""
    hasher = hashlib.blake2b(f"{dataset}\n{options}\n".encode(), digest_size=12)
    for file in visible_files(part) if part.is_dir() else [part]:
        try:
            state = file.stat()
        except OSError:
            continue  # a link to nowhere
        hasher.update(
            f"{file.relative_to(part)}\n{state.st_size}\n{state.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
        )
    return hasher.hexdigest()


def _parts_of(manifest: Manifest) -> set[str]:
    return set(manifest.scene_table["part"].to_pylist()) - {""}


def _unchanged(previous: Manifest, stamps: dict[str, str]) -> dict[str, pa.Table]:
    """Rows of the parts that have the same stamp as before."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for scene in previous.scene_table.select(["part", "stamp", "first", "frames"]).to_pylist():
        if scene["stamp"] and stamps.get(scene["part"]) == scene["stamp"]:
            spans.setdefault(scene["part"], []).append((scene["first"], scene["frames"]))
    return {
        part: pa.concat_tables([previous.table.slice(first, count) for first, count in held])
        for part, held in spans.items()
    }


def _without_twins(tables: Sequence[pa.Table]) -> tuple[list[pa.Table], list[Skipped]]:
    """Leave out frames whose picture an earlier one has already: the same bytes of the same file, read likewise."""
    seen: set[tuple[str, str, int | None]] = set()
    kept, skipped = [], []
    for table in tables:
        offsets = table["image_offset"].to_pylist() if "image_offset" in table.column_names else [None] * len(table)
        names, codecs = table["image"].to_pylist(), table["image_codec"].to_pylist()
        fresh = np.ones(len(table), dtype=bool)
        for place, picture in enumerate(zip(names, codecs, offsets, strict=True)):
            if picture in seen:
                fresh[place] = False
                skipped.append(Skipped(picture[0], f"{picture[0]} is listed twice; only the first is kept."))
            seen.add(picture)
        kept.append(table if fresh.all() else table.filter(pa.array(fresh)))
    return kept, skipped
