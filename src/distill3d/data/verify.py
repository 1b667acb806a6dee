"""Whether the files that a manifest names are there, whole, and as large as it says."""

from pathlib import Path

import pyarrow as pa

from distill3d.data.columns import to_rows
from distill3d.data.frames import existing, read_depth, read_mask, read_picture, read_sky
from distill3d.data.rows import ManifestRow, Skipped
from distill3d.data.table import Manifest
from distill3d.data.video import spread
from distill3d.errors import DataError
from distill3d.progress import track


def verify_files(manifest: Manifest, frames: int | None = None) -> tuple[Skipped, ...]:
    """Decode photos, depth maps and masks of a manifest; list those that are missing, damaged or changed.

    Frames of videos are checked for the presence of the video alone.

    Args:
        manifest: what is checked.
        frames: of so many frames, spread over all; of every one if `None`.
    """
    total = len(manifest) if frames is None else min(frames, len(manifest))
    wanted = manifest.table.take(pa.array(spread(len(manifest), total), pa.int64()))
    found = []
    rows = (row for batch in wanted.to_batches(max_chunksize=4096) for row in to_rows(batch.to_pylist()))
    for row in track(rows, "reading files", total, unit="frames"):
        problem = find_problem(row, manifest.root)
        if problem is not None:
            found.append(Skipped(row.image.path, problem))
    return tuple(found)


def find_problem(row: ManifestRow, root: Path) -> str | None:
    """Why a frame cannot be used, if so."""
    try:
        if row.image.store == "video":
            existing(row.image, root)
        else:
            read_picture(row, root, (8, 8))
        for read in (read_depth, read_mask, read_sky):
            read(row, root)
    except DataError as error:
        return str(error)
    return None
