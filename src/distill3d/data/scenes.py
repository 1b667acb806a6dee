"""The table of scenes that goes with a manifest: one row per scene, so that opening ten million frames reads few.

scene, dataset, licence, scale      as in the rows of the scene
first, frames                       the first row of the scene in the table of frames, and how many there are
splits                              those that its frames belong to
intrinsics, poses, depth            how many frames have each
part, stamp                         what it was read from, and a hash of the names, sizes and times of its files
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa


def scene_table(frames: pa.Table, sources: Mapping[str, tuple[str, str]] | None = None) -> pa.Table:
    """Gather the scenes of a table of frames whose rows stand scene by scene.

    Args:
        frames: in the columns of `data.columns`.
        sources: for each scene, what it was read from and its stamp; empty where unknown.
    """
    codes, words = encoded(frames["scene"])
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    counts = np.diff(starts, append=len(codes))
    kept = [words[code] for code in codes[starts].tolist()]
    known = sources or {}
    return pa.table(
        {
            "scene": pa.array(kept, pa.string()),
            **{name: frames[name].cast(pa.string()).take(pa.array(starts)) for name in ("dataset", "licence", "scale")},
            "first": pa.array(starts, pa.int64()),
            "frames": pa.array(counts, pa.int64()),
            "splits": pa.array(_splits(frames, starts), pa.list_(pa.string())),
            "intrinsics": _present(frames, "intrinsics", starts),
            "poses": _present(frames, "world_from_camera", starts),
            "depth": _present(frames, "depth", starts),
            "part": pa.array([known.get(name, ("", ""))[0] for name in kept], pa.string()),
            "stamp": pa.array([known.get(name, ("", ""))[1] for name in kept], pa.string()),
        }
    )


def _present(frames: pa.Table, column: str, starts: np.ndarray) -> pa.Array:
    """How many frames of each scene have something in a column."""
    if column not in frames.column_names or not len(starts):
        return pa.array(np.zeros(len(starts), dtype=np.int64))
    held = frames[column].is_valid().to_numpy(zero_copy_only=False)
    return pa.array(np.add.reduceat(held.astype(np.int64), starts))


def _splits(frames: pa.Table, starts: np.ndarray) -> list[list[str]]:
    """The splits of each scene, in alphabetical order."""
    codes, words = encoded(frames["split"])
    held: list[list[str]] = [[] for _ in starts]
    scene = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(codes)))
    for both in np.unique(scene * max(len(words), 1) + codes).tolist():
        held[both // len(words)].append(words[both % len(words)])
    return [sorted(splits) for splits in held]


def encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Codes and words of a dictionary-encoded column."""
    unified = column.unify_dictionaries()
    if not unified.num_chunks:
        return np.empty(0, dtype=np.int64), []
    codes = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in unified.chunks]
    return np.concatenate(codes).astype(np.int64), unified.chunk(0).dictionary.to_pylist()
