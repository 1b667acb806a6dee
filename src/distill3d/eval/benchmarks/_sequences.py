"""Frames of a data set, scene by scene, and the lists of frames that a protocol fixes."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path

from distill3d.data import datasets
from distill3d.data.rows import ManifestRow, Skipped
from distill3d.data.sources import find_source
from distill3d.errors import DataError
from distill3d.eval.benchmark import Sample
from distill3d.files import read_json

ANY_LAYOUT = "any layout"
"""In place of a loader's name: whatever `manifest build` would find out."""
FRAME_LIST = "frames.json"
"""Beside a data set: {scene: [frame, ...]}, where a protocol's own list was made elsewhere; taken before any stride."""


@functools.lru_cache(maxsize=8)
def sequences(dataset: str, root: Path) -> dict[str, tuple[ManifestRow, ...]]:
    """Frames of every scene with all that is known of them, in the order of time.

    Args:
        dataset: name of the loader, or `ANY_LAYOUT` to find out what the folder holds.
        root: of the data set.

    Raises:
        DataError: not one frame can be used; the message says why.
    """
    skipped: list[Skipped] = []
    found: dict[str, list[ManifestRow]] = {}
    if dataset == ANY_LAYOUT:
        source = find_source(root)
        spec, rows = source.spec, source.scan(on_skip=skipped.append)
    else:
        spec = datasets.get(dataset)
        rows = spec.scan(root, on_skip=skipped.append)
    for row in rows:
        found.setdefault(row.scene, []).append(row)
    if not found:
        reason = skipped[0].reason if skipped else f"its layout is not that of {spec.title}"
        raise DataError(f"{root} holds no usable frame of {spec.title}: {reason}")
    return {scene: tuple(sorted(rows, key=lambda row: row.frame)) for scene, rows in found.items()}


def listed(rows: Sequence[ManifestRow], root: Path, stride: int) -> tuple[ManifestRow, ...]:
    """Frames of one scene that the list beside the data names, else every so many.

    Raises:
        DataError: the list names a frame that is not there.
    """
    path = root / FRAME_LIST
    if not path.is_file():
        return tuple(rows[::stride])
    wanted = _frame_list(path).get(rows[0].scene)
    if wanted is None:
        return ()
    known = {row.frame: row for row in rows}
    missing = [frame for frame in wanted if frame not in known]
    if missing:
        raise DataError(f"{path} names frames {missing[:5]} of {rows[0].scene}, which are not among its {len(rows)}.")
    return tuple(known[frame] for frame in wanted)


def evenly(rows: Sequence[ManifestRow], root: Path, count: int) -> tuple[ManifestRow, ...]:
    """Frames that the list beside the data names, else at most so many, evenly spread."""
    if (root / FRAME_LIST).is_file():
        return listed(rows, root, 1)
    if len(rows) <= count:
        return tuple(rows)
    return tuple(rows[round(place * (len(rows) - 1) / (count - 1))] for place in range(count))


def one_per_scene(
    chosen: dict[str, tuple[ManifestRow, ...]], *, at_least: int = 1, group: str | None = None
) -> list[Sample]:
    """A sample for every scene with enough frames."""
    return [
        Sample(key=scene, group=scene if group is None else group, rows=rows)
        for scene, rows in chosen.items()
        if len(rows) >= at_least
    ]


def needs(root: Path | None) -> Path:
    """The folder of the data set.

    Raises:
        DataError: none was given, or it is not there.
    """
    if root is None or not root.is_dir():
        raise DataError(f"There is no folder {root} with the data set; give it with --data.")
    return root


@functools.lru_cache(maxsize=4)
def _frame_list(path: Path) -> dict[str, list[int]]:
    try:
        found = read_json(path)
        return {str(scene): [int(frame) for frame in frames] for scene, frames in found.items()}
    except (ValueError, AttributeError, TypeError, json.JSONDecodeError) as error:
        raise DataError(
            f"{path} is not a list of frames by scene ({error}); expected {{scene: [frame, ...]}}."
        ) from error
