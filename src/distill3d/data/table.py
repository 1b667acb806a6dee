"""Manifests: every frame of every scene in one Parquet file, with a small table of the scenes beside it.

    photos.parquet            frames: the columns of `data.columns`, scene by scene, each in true time order
    photos.scenes.parquet     scenes: where each stands in the frames, what it has, and what it was read from
    photos.arrow              the frames uncompressed, mapped into memory by every process; made for large manifests

The first is the manifest; the others are made from it where they are missing or belong to another. The metadata of its
schema holds, under `distill3d.manifest`, {"format": 2, "root": "...", "digest": "..."}; media stay where they are,
below the root.
"""

import bisect
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill3d.data.columns import REQUIRED, in_order, to_rows, to_table, without_empty
from distill3d.data.mapped import map_table, write_mapped
from distill3d.data.rows import ManifestRow, natural_key
from distill3d.data.scenes import encoded, scene_table
from distill3d.errors import DataError
from distill3d.files import PathLike, atomic_writer

FORMAT = 2
METADATA_KEY = b"distill3d.manifest"
MAPPED_FROM = 200_000
"""Manifests of at least so many frames are mapped into memory; smaller ones are read."""


@dataclass(frozen=True, eq=False)
class Manifest:
    """Frames of scenes; those of a scene stand together and in true time order."""

    table: pa.Table
    root: Path
    """The folder that the paths in it start from."""
    known_scenes: pa.Table | None = None
    """Its table of scenes, if it was at hand."""

    @classmethod
    def from_rows(cls, rows: Iterable[ManifestRow], root: PathLike) -> "Manifest":
        """Collect rows, in natural order of scenes and numeric order of frames.

        Raises:
            DataError: two rows are the same frame of the same scene.
        """
        return cls.from_tables([to_table(rows)], root)

    @classmethod
    def from_tables(cls, tables: Iterable[pa.Table], root: PathLike) -> "Manifest":
        """As `from_rows`, from rows that are tables already (of `columns.to_table`).

        Raises:
            DataError: two rows are the same frame of the same scene.
        """
        joined = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
        codes, names = encoded(joined["scene"])
        rank = np.empty(len(names), dtype=np.int64)
        rank[sorted(range(len(names)), key=lambda code: natural_key(names[code]))] = np.arange(len(names))
        frames = joined["frame"].to_numpy()
        order = np.lexsort((frames, rank[codes])) if len(joined) else np.empty(0, dtype=np.int64)
        scenes, numbers = codes[order], frames[order]
        twice = np.flatnonzero((scenes[1:] == scenes[:-1]) & (numbers[1:] == numbers[:-1]))
        if len(twice):
            first, second = (joined["image"][int(order[place])].as_py() for place in (twice[0], twice[0] + 1))
            raise DataError(
                f"Frame {numbers[twice[0]]} of scene {names[scenes[twice[0]]]} is listed twice ({first} and {second}); "
                "expected each once."
            )
        return cls(in_order(without_empty(joined), order), Path(root))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def scene_table(self) -> pa.Table:
        """One row per scene; see `data.scenes`."""
        return self.known_scenes if self.known_scenes is not None else scene_table(self.table)

    def scenes(self, split: str | None = None) -> tuple[str, ...]:
        """Names of the scenes (that have frames in `split`), in natural order."""
        if split is None:
            return tuple(self._places)
        splits = self.scene_table["splits"].to_pylist()
        return tuple(scene for scene, held in zip(self._places, splits, strict=True) if split in held)

    def frames(self, scene: str, split: str | None = None) -> tuple[int, ...]:
        """Frame numbers of a scene (in `split`), ascending.

        Raises:
            DataError: there is no such scene.
        """
        first, numbers = self._frames(scene)
        if split is not None:
            held = self.table["split"].slice(first, len(numbers)).to_pylist()
            numbers = numbers[[word == split for word in held]]
        return tuple(numbers.tolist())

    def row(self, scene: str, frame: int) -> ManifestRow:
        """One frame.

        Raises:
            DataError: there is no such scene or frame.
        """
        return self.group(scene, [frame])[0]

    def group(self, scene: str, frames: Sequence[int]) -> list[ManifestRow]:
        """Some frames of a scene, in the given order.

        Raises:
            DataError: there is no such scene or frame.
        """
        first, numbers = self._frames(scene)
        places = np.searchsorted(numbers, frames)
        for place, frame in zip(places.tolist(), frames, strict=True):
            if place == len(numbers) or numbers[place] != frame:
                raise DataError(
                    f"Scene {scene} has no frame {frame}; it has {len(numbers)} from {numbers[0]} to {numbers[-1]}. "
                    "The manifest may be another than the one the frame was chosen from."
                )
        batch = bisect.bisect_right(self._starts, first) - 1
        start, held = self._starts[batch], self._batches[batch]
        if first + len(numbers) > start + len(held):  # the scene goes on in the next batch
            held, start = self.table.slice(first, len(numbers)).combine_chunks().to_batches()[0], first
        return to_rows(held.take(pa.array(places + (first - start))).to_pylist())

    def rows(self, scene: str | None = None) -> Iterator[ManifestRow]:
        """All frames, scene by scene; or those of one scene.

        Raises:
            DataError: there is no such scene.
        """
        table = self.table
        if scene is not None:
            first, numbers = self._frames(scene)
            table = table.slice(first, len(numbers))
        for batch in table.to_batches(max_chunksize=4096):
            yield from to_rows(batch.to_pylist())

    def splits(self) -> dict[str, int]:
        """Number of frames in each split."""
        codes, words = encoded(self.table["split"])
        counts = np.bincount(codes, minlength=len(words)).tolist()
        return {word: count for word, count in sorted(zip(words, counts, strict=True)) if count}

    def path(self, relative: str) -> Path:
        """Where a file named in a row is on this machine."""
        return self.root / relative

    def summary(self) -> dict[str, Any]:
        """What it holds, ready for JSON."""
        return {
            "frames": len(self),
            "scenes": len(self._places),
            "datasets": _words(self.table["dataset"]),
            "splits": self.splits(),
            "with_intrinsics": self._count("intrinsics"),
            "with_poses": self._count("world_from_camera"),
            "with_depth": self._count("depth"),
            "distorted": self._count("distortion_model"),
            "from_video": self._from_video(),
            "scales": _words(self.table["scale"]),
            "licences": _words(self.table["licence"]),
            "root": str(self.root),
        }

    def save(self, path: PathLike) -> Path:
        """Write it as one Parquet file, and its table of scenes beside it.

        The root is kept relative to the file where one of the two lies within the other's folder, so that they can be
        moved together; absolute otherwise.

        Raises:
            OutputError: the place cannot be written to.
        """
        path = Path(path)
        digest = _digest(self.table)
        header = {"format": FORMAT, "root": _portable_root(self.root, path), "digest": digest}
        metadata = {METADATA_KEY: json.dumps(header, sort_keys=True).encode()}
        scenes = self.scene_table.replace_schema_metadata(metadata)
        with atomic_writer(path, needed=self.table.nbytes) as file:
            pq.write_table(self.table.replace_schema_metadata(metadata), file, compression="zstd")
        with atomic_writer(beside(path, ".scenes.parquet"), needed=scenes.nbytes) as file:
            pq.write_table(scenes, file, compression="zstd")
        beside(path, ".arrow").unlink(missing_ok=True)
        if len(self) >= MAPPED_FROM:
            write_mapped(self.table, beside(path, ".arrow"), digest)
        return path

    @cached_property
    def _places(self) -> dict[str, int]:
        """The row of each scene in the table of scenes."""
        return {scene: place for place, scene in enumerate(self.scene_table["scene"].to_pylist())}

    @cached_property
    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        return self.scene_table["first"].to_numpy(), self.scene_table["frames"].to_numpy()

    @cached_property
    def _frame_column(self) -> pa.ChunkedArray:
        return self.table["frame"]

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        return list(self.table.to_batches())

    @cached_property
    def _starts(self) -> list[int]:
        """The first row of each batch."""
        return [0, *np.cumsum([len(batch) for batch in self._batches]).tolist()[:-1]]

    def _frames(self, scene: str) -> tuple[int, np.ndarray]:
        """The first row of a scene, and its frame numbers."""
        place = self._places.get(scene)
        if place is None:
            known = ", ".join(list(self._places)[:5]) + (", ..." if len(self._places) > 5 else "")
            raise DataError(f"There is no scene {scene!r} in the manifest, which has {len(self._places)}: {known}.")
        first, count = int(self._spans[0][place]), int(self._spans[1][place])
        return first, self._frame_column.slice(first, count).to_numpy()

    def _from_video(self) -> int:
        if "image_store" not in self.table.column_names:
            return 0
        return int(pc.sum(pc.equal(self.table["image_store"].cast(pa.string()), "video")).as_py() or 0)

    def _count(self, column: str) -> int:
        return len(self) - self.table[column].null_count if column in self.table.column_names else 0


def load_manifest(path: PathLike, root: PathLike | None = None) -> Manifest:
    """Open a manifest. A large one is mapped into memory, so that any number of processes share one copy.

    Args:
        path: the Parquet file.
        root: where the photos are on this machine, if not where the manifest says.

    Raises:
        DataError: it is missing, no manifest, or written by a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no manifest at {path}. Make one with: distill3d manifest build PHOTOS --out {path}")
    try:
        with pq.ParquetFile(path) as file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
        header = json.loads((schema.metadata or {}).get(METADATA_KEY, b"null"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is no manifest: {str(error).rstrip('.')}. Build it again.") from error
    if not isinstance(header, dict):
        raise DataError(
            f"{path} is a Parquet file, but no manifest of distill3d. Build one with: distill3d manifest build"
        )
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path} has manifest format {header.get('format')!r}; this distill3d knows format {FORMAT}. "
            "Use a newer distill3d, or build the manifest again."
        )
    if missing := [name for name in REQUIRED if name not in schema.names]:
        raise DataError(f"{path} lacks the columns {missing}, expected all of {list(REQUIRED)}. Build it again.")
    found = Path(root) if root is not None else Path(os.path.normpath(path.parent / header["root"]))
    return Manifest(_frames_of(path, num_rows, header["digest"]), found, _scenes_of(path, header["digest"]))


def beside(path: Path, suffix: str) -> Path:
    """A file that belongs to a manifest: photos.parquet has photos.scenes.parquet."""
    return path.with_name(path.name.removesuffix(".parquet") + suffix)


def _frames_of(path: Path, num_rows: int, digest: str) -> pa.Table:
    sidecar = beside(path, ".arrow")
    if num_rows >= MAPPED_FROM and (mapped := map_table(sidecar, digest)) is not None:
        return mapped
    try:
        table = pq.read_table(path).unify_dictionaries()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}. Build it again.") from error
    if num_rows >= MAPPED_FROM and write_mapped(table, sidecar, digest):
        return map_table(sidecar, digest) or table
    return table


def _scenes_of(path: Path, digest: str) -> pa.Table | None:
    """The table of scenes, if it is there and of this manifest."""
    try:
        scenes = pq.read_table(beside(path, ".scenes.parquet"))
        header = json.loads((scenes.schema.metadata or {})[METADATA_KEY])
    except (pa.ArrowException, OSError, LookupError, ValueError):
        return None
    return scenes if header.get("digest") == digest else None


def _words(column: pa.ChunkedArray) -> list[str]:
    codes, words = encoded(column)
    return sorted({words[code] for code in np.unique(codes).tolist()} - {""})


class _HashingFile(io.RawIOBase):
    """A file that keeps nothing of what is written but its hash."""

    def __init__(self) -> None:
        self.hasher = hashlib.blake2b(digest_size=16)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hasher.update(data)
        return memoryview(data).nbytes


def _digest(table: pa.Table) -> str:
    """A hash of the contents: the same manifest has the same, wherever and whenever it is built."""
    file = _HashingFile()
    with pa.ipc.new_stream(pa.PythonFile(file, mode="w"), table.schema) as writer:
        writer.write_table(table)
    return file.hasher.hexdigest()


def _portable_root(root: Path, manifest: Path) -> str:
    folder, root = manifest.parent.resolve(), root.resolve()
    if folder.is_relative_to(root) or root.is_relative_to(folder):
        return Path(os.path.relpath(root, folder)).as_posix()
    return str(root)
