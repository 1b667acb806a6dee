"""Everything about a reconstruction in one folder."""

import logging
from collections.abc import Sequence
from pathlib import Path

from distill3d.data.placement import Placement
from distill3d.errors import ConfigError
from distill3d.export.cameras import write_cameras
from distill3d.export.cloud import gather_cloud
from distill3d.export.depth import write_depth
from distill3d.export.glb import write_glb
from distill3d.export.ply import write_ply
from distill3d.files import write_json
from distill3d.types import Reconstruction

logger = logging.getLogger(__name__)

FORMATS = ("ply", "glb", "png", "npz", "cameras", "info")


def export_reconstruction(
    reconstruction: Reconstruction,
    folder: Path,
    *,
    formats: Sequence[str] = FORMATS,
    max_points: int | None = 2_000_000,
    seed: int = 0,
    placements: Sequence[Placement] | None = None,
) -> dict[str, Path]:
    """Write the chosen formats and say where: `points.ply`, `points.glb`, `depth/`, `cameras.json`, `info.json`.

    Each file is complete or absent. Above `max_points` the clouds are an even random choice, the same in PLY and GLB.

    Raises:
        ConfigError: a format that does not exist.
        OutputError: no point to write (nothing is written then), or no room.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ConfigError(f"unknown formats {unknown}; known are {list(FORMATS)}")
    num_points = len(gather_cloud(reconstruction, max_points=max_points, seed=seed))
    files: dict[str, Path] = {}
    if "ply" in formats:
        files["ply"] = write_ply(folder / "points.ply", reconstruction, max_points=max_points, seed=seed)
    if "glb" in formats:
        files["glb"] = write_glb(folder / "points.glb", reconstruction, max_points=max_points, seed=seed)
    if "png" in formats or "npz" in formats:
        write_depth(folder / "depth", reconstruction, png="png" in formats, npz="npz" in formats)
        files["depth"] = folder / "depth"
    if "cameras" in formats:
        files["cameras"] = write_cameras(folder / "cameras.json", reconstruction, placements)
    if "info" in formats:
        keep = reconstruction.keep
        info = {
            "format": 1,
            "num_views": len(reconstruction.names),
            "views": list(reconstruction.names),
            "num_points_kept": int(keep.sum()),
            "num_points_written": num_points,
            "files": {name: str(path.relative_to(folder)) for name, path in files.items()},
            "reconstruction": dict(reconstruction.info),
        }
        files["info"] = folder / "info.json"
        write_json(files["info"], info)
    logger.info("%d points of %d views written", num_points, len(reconstruction.names))
    return files
