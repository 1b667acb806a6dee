"""The table behind a manifest: one Parquet file that lists every frame, with its camera where that is known.

Columns are the fields of `ManifestRow`, matrices flattened to lists of float64. The metadata of the schema holds, under
the key `distill3d.manifest`, {"format": 1, "root": "..."}; media stay where they are, below the root.
"""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill3d.data.rows import ManifestRow, Matrix, natural_key
from distill3d.errors import DataError
from distill3d.files import PathLike, atomic_writer

FORMAT = 1
_METADATA_KEY = b"distill3d.manifest"
_MATRICES = {"intrinsics": 3, "world_from_camera": 4}
_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("scene", pa.string()),
        ("frame", pa.int64()),
        ("image", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("video_frame", pa.int64()),
        ("intrinsics", pa.list_(pa.float64())),
        ("world_from_camera", pa.list_(pa.float64())),
        ("depth", pa.string()),
        ("depth_unit", pa.float64()),
        ("split", pa.string()),
        ("is_metric", pa.bool_()),
        ("licence", pa.string()),
    ]
)


@dataclass(frozen=True)
class Manifest:
    """Frames of scenes; those of a scene are always in true numeric order."""

    table: pa.Table
    root: Path
    """The folder that the paths in it start from."""

    @classmethod
    def from_rows(cls, rows: Iterable[ManifestRow], root: PathLike) -> "Manifest":
        """Collect rows, in natural order of scenes and numeric order of frames.

        Raises:
            DataError: two rows are the same frame of the same scene.
        """
        ordered = sorted(rows, key=lambda row: (natural_key(row.scene), row.frame))
        for before, after in itertools.pairwise(ordered):
            if (before.scene, before.frame) == (after.scene, after.frame):
                raise DataError(
                    f"Frame {after.frame} of scene {after.scene} is listed twice ({before.image} and {after.image}); "
                    "expected each once."
                )
        return cls(pa.Table.from_pylist([_to_record(row) for row in ordered], schema=_SCHEMA), Path(root))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def scenes(self, split: str | None = None) -> tuple[str, ...]:
        """Names of the scenes (that have frames in `split`), in natural order."""
        return tuple(scene for scene in self._index if split is None or self.frames(scene, split))

    def frames(self, scene: str, split: str | None = None) -> tuple[int, ...]:
        """Frame numbers of a scene (in `split`), ascending.

        Raises:
            DataError: there is no such scene.
        """
        numbers, positions = self._positions(scene)
        if split is not None:
            numbers = numbers[self._splits[positions] == split]
        return tuple(numbers.tolist())

    def row(self, scene: str, frame: int) -> ManifestRow:
        """One frame.

        Raises:
            DataError: there is no such scene or frame.
        """
        numbers, positions = self._positions(scene)
        place = int(np.searchsorted(numbers, frame))
        if place == len(numbers) or numbers[place] != frame:
            raise DataError(
                f"Scene {scene} has no frame {frame}; it has {len(numbers)} between {numbers[0]} and {numbers[-1]}. "
                "The manifest may be another than the one the frame was chosen from."
            )
        return _to_row(self.table.slice(int(positions[place]), 1).to_pylist()[0])

    def rows(self) -> Iterator[ManifestRow]:
        """All frames, scene by scene."""
        for batch in self.table.to_batches(max_chunksize=4096):
            yield from map(_to_row, batch.to_pylist())

    def splits(self) -> dict[str, int]:
        """Number of frames in each split."""
        names, counts = np.unique(self._splits, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def path(self, relative: str) -> Path:
        """Where a file named in a row is on this machine."""
        return self.root / relative

    def summary(self) -> dict[str, Any]:
        """What it holds, ready for JSON."""
        table = self.table
        return {
            "frames": len(self),
            "scenes": len(self._index),
            "splits": self.splits(),
            "with_intrinsics": len(self) - table["intrinsics"].null_count,
            "with_poses": len(self) - table["world_from_camera"].null_count,
            "with_depth": len(self) - table["depth"].null_count,
            "from_video": len(self) - table["video_frame"].null_count,
            "licences": sorted(set(table["licence"].to_pylist()) - {""}),
            "root": str(self.root),
        }

    def save(self, path: PathLike) -> Path:
        """Write it as one Parquet file.

        The root is kept relative to the file where one of the two lies within the other's folder, so that they can be
        moved together; absolute otherwise.

        Raises:
            OutputError: the place cannot be written to.
        """
        path = Path(path)
        header = {"format": FORMAT, "root": _portable_root(self.root, path)}
        table = self.table.replace_schema_metadata({_METADATA_KEY: json.dumps(header, sort_keys=True).encode()})
        with atomic_writer(path, needed=table.nbytes) as file:
            pq.write_table(table, file, compression="zstd")
        return path

    @cached_property
    def _index(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """For each scene the frame numbers, ascending, and the rows they stand in."""
        encoded = self.table["scene"].combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        frames = self.table["frame"].to_numpy()
        order = np.lexsort((frames, codes))
        bounds = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
        names = encoded.dictionary.to_pylist()
        spans = {name: order[bounds[code] : bounds[code + 1]] for code, name in enumerate(names)}
        return {name: (frames[spans[name]], spans[name]) for name in sorted(names, key=natural_key)}

    @cached_property
    def _splits(self) -> np.ndarray:
        return np.asarray(self.table["split"].to_pylist(), dtype=str)

    def _positions(self, scene: str) -> tuple[np.ndarray, np.ndarray]:
        if scene not in self._index:
            known = ", ".join(list(self._index)[:5]) + (", ..." if len(self._index) > 5 else "")
            raise DataError(f"There is no scene {scene!r} in the manifest, which has {len(self._index)}: {known}.")
        return self._index[scene]


def load_manifest(path: PathLike, root: PathLike | None = None) -> Manifest:
    """Read a manifest.

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
        table = pq.read_table(path)
        header = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"null"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is no manifest: {error}. Build it again.") from error
    if not isinstance(header, dict):
        raise DataError(
            f"{path} is a Parquet file, but no manifest of distill3d. Build one with: distill3d manifest build"
        )
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path} has manifest format {header.get('format')!r}; this distill3d knows format {FORMAT}. "
            "Use a newer distill3d, or build the manifest again."
        )
    missing = [name for name in _SCHEMA.names if name not in table.column_names]
    if missing:
        raise DataError(f"{path} lacks the columns {missing}, expected all of {_SCHEMA.names}. Build it again.")
    found = Path(root) if root is not None else Path(os.path.normpath(path.parent / header["root"]))
    return Manifest(table.select(_SCHEMA.names).cast(_SCHEMA), found)


def _to_record(row: ManifestRow) -> dict[str, Any]:
    record = {field.name: getattr(row, field.name) for field in fields(row)}
    for name in _MATRICES:
        if record[name] is not None:
            record[name] = [value for line in record[name] for value in line]
    return record


def _to_row(record: dict[str, Any]) -> ManifestRow:
    for name, size in _MATRICES.items():
        values = record[name]
        if values is not None:
            matrix: Matrix = tuple(tuple(values[start : start + size]) for start in range(0, size * size, size))
            record[name] = matrix
    return ManifestRow(**record)


def _portable_root(root: Path, manifest: Path) -> str:
    folder, root = manifest.parent.resolve(), root.resolve()
    if folder.is_relative_to(root) or root.is_relative_to(folder):
        return Path(os.path.relpath(root, folder)).as_posix()
    return str(root)
