"""Cameras and provenance as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill3d.data.placement import Placement
from distill3d.errors import OutputError
from distill3d.files import write_json
from distill3d.types import Reconstruction

CONVENTIONS = {
    "pose": "world_from_camera, 4x4, rows: takes points of the camera's frame to the world",
    "axes": "OpenCV: x right, y down, z forward",
    "world": "camera frame of view 0, unless info says otherwise",
    "pixels": "integer pixel centres: (0, 0) is the centre of the top-left pixel "
    "(add 0.5 to cx and cy for COLMAP and nerfstudio)",
    "canvas": "the image the network saw; source: the photo as displayed (EXIF orientation applied)",
}


def camera_records(
    reconstruction: Reconstruction, placements: Sequence[Placement] | None = None
) -> list[dict[str, Any]]:
    """Describe every camera in plain numbers; the source's pixels come in where its placement is known.

    Raises:
        OutputError: the reconstruction has no cameras, or the placements are not one per view.
    """
    prediction = reconstruction.prediction
    if prediction.intrinsics is None or prediction.world_from_camera is None:
        raise OutputError("the reconstruction has no cameras; expected intrinsics and world_from_camera")
    if placements is not None and len(placements) != len(reconstruction.names):
        raise OutputError(f"{len(placements)} placements for {len(reconstruction.names)} views; expected one each")
    intrinsics = prediction.intrinsics[0].detach().double().cpu()
    poses = prediction.world_from_camera[0].detach().double().cpu()
    height, width = reconstruction.views.images.shape[-2:]
    records = []
    for index, name in enumerate(reconstruction.names):
        record: dict[str, Any] = {
            "name": name,
            "world_from_camera": poses[index].tolist(),
            "canvas": {"height": height, "width": width, "intrinsics": intrinsics[index].tolist()},
        }
        if placements is not None:
            source_height, source_width = placements[index].source
            source = placements[index].to_source(intrinsics[index])
            record["source"] = {"height": source_height, "width": source_width, "intrinsics": source.tolist()}
        records.append(record)
    return records


def write_cameras(path: Path, reconstruction: Reconstruction, placements: Sequence[Placement] | None = None) -> Path:
    """Write `{"format": 1, "conventions": {...}, "cameras": [...]}`; see `CONVENTIONS`."""
    cameras = camera_records(reconstruction, placements)
    write_json(path, {"format": 1, "conventions": CONVENTIONS, "cameras": cameras})
    return path
