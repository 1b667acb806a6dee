"""Coloured point clouds as binary PLY."""

from pathlib import Path

import numpy as np

from distill3d.export.cloud import PointCloud, gather_cloud
from distill3d.files import atomic_write_bytes
from distill3d.types import Reconstruction

VERTEX = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("nx", "<f4"),
        ("ny", "<f4"),
        ("nz", "<f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("confidence", "<f4"),
        ("view", "<u2"),
    ]
)
_PLY_NAMES = {"<f4": "float", "|u1": "uchar", "<u2": "ushort"}


def encode_ply(cloud: PointCloud, comments: tuple[str, ...] = ()) -> bytes:
    """Give the bytes of a little-endian PLY: place, normal, sRGB colour, confidence and view number of every point."""
    vertices = np.empty(len(cloud), dtype=VERTEX)
    for axis, name in enumerate(("x", "y", "z")):
        vertices[name] = cloud.points[:, axis]
        vertices[f"n{name}"] = cloud.normal[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = cloud.colors[:, channel]
    vertices["confidence"] = cloud.confidence
    vertices["view"] = np.minimum(cloud.view, 65535)
    header = ["ply", "format binary_little_endian 1.0"]
    # A line break in a comment would end the header early.
    header += [f"comment {' '.join(comment.split())}" for comment in comments]
    header += [f"element vertex {len(cloud)}"]
    header += [f"property {_PLY_NAMES[VERTEX[name].str]} {name}" for name in VERTEX.names or ()]
    header += ["end_header", ""]
    return "\n".join(header).encode("ascii", "replace") + vertices.tobytes()


def write_ply(path: Path, reconstruction: Reconstruction, *, max_points: int | None = None, seed: int = 0) -> Path:
    """Write the kept points in the world frame as it is: OpenCV axes, y down (GLB is the one that is turned upright).

    Raises:
        OutputError: no point to write, or no room for the file.
    """
    cloud = gather_cloud(reconstruction, max_points=max_points, seed=seed)
    comments = (
        "distill3d point cloud",
        "axes: OpenCV (x right, y down, z forward); world = camera of view 0; units: scene units",
        f"{len(reconstruction.names)} views",
    )
    atomic_write_bytes(path, encode_ply(cloud, comments))
    return path
