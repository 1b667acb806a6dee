"""Overlaps computed before, kept in a file: decoding depth takes hours for a large set, reading these no time.

One SQLite table from a digest to the matrix. The digest covers what overlap depends on (the frames' references and
cameras, sizes and times of their files), so that nothing has to be thrown away when some of the data has changed.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from distill3d.data.overlap import scene_overlap
from distill3d.data.rows import ManifestRow
from distill3d.data.table import Manifest
from distill3d.files import PathLike

logger = logging.getLogger(__name__)

VERSION = 1
"""Of what `scene_overlap` computes."""


class OverlapStore:
    """Overlaps of one manifest, computed where they are not known yet."""

    def __init__(self, path: PathLike | None) -> None:
        """Open the file, or begin it. Without one, or where it cannot be written, everything is computed."""
        self._database: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            self._database = sqlite3.connect(Path(path), isolation_level=None)
            self._database.execute("CREATE TABLE IF NOT EXISTS overlaps (digest BLOB PRIMARY KEY, matrix BLOB)")
        except sqlite3.Error as error:
            self._give_up(error, path)

    def between(self, manifest: Manifest, scene: str, frames: tuple[int, ...]) -> Float[np.ndarray, "frames frames"]:
        """As `scene_overlap`.

        Raises:
            DataError: there is no such scene or frame.
        """
        if self._database is None:
            return scene_overlap(manifest, scene, frames)
        key = _digest(manifest.group(scene, frames), manifest.root)
        try:
            found = self._database.execute("SELECT matrix FROM overlaps WHERE digest = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error, "the overlaps")
            return scene_overlap(manifest, scene, frames)
        if found is not None and len(found[0]) == 8 * len(frames) ** 2:
            return np.frombuffer(found[0], np.float64).reshape(len(frames), len(frames)).copy()
        overlap = scene_overlap(manifest, scene, frames)
        try:
            self._database.execute("INSERT OR REPLACE INTO overlaps VALUES (?, ?)", (key, overlap.tobytes()))
        except sqlite3.Error as error:
            self._give_up(error, "the overlaps")
        return overlap

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _give_up(self, error: Exception, path: object) -> None:
        logger.warning("%s cannot be kept (%s): overlaps are computed anew each time", path, error)
        self.close()


def _digest(rows: Sequence[ManifestRow], root: Path) -> bytes:
    hasher = hashlib.blake2b(f"{VERSION}\n".encode(), digest_size=16)
    for row in rows:
        camera = (row.intrinsics, row.distortion, row.world_from_camera, row.depth_kind, row.height, row.width)
        refs = (row.image, row.depth, row.depth_mask)
        hasher.update(repr((camera, refs)).encode("utf-8", "surrogateescape"))
        for ref in refs:
            if ref is not None:
                hasher.update(_state(root / ref.path))
    return hasher.digest()


def _state(path: Path) -> bytes:
    try:
        state = path.stat()
    except OSError:
        return b"absent"
    return f"{state.st_size} {state.st_mtime_ns}\n".encode()
