"""Bonn RGB-D (moving people) and TUM RGB-D, which share a layout.

<scene>/rgb/<seconds>.png  depth/<seconds>.png  groundtruth.txt       `time tx ty tz qx qy qz qw`, world from camera

Colour, depth and poses have clocks of their own: each picture gets the depth and the pose nearest in time, within 20
ms.
Depth is a sixteen-bit number / 5000 in metres. The layout states no camera, so rows have none.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill3d.data.camera_files import Trajectory, nearest_time, poses_from_quaternions, read_numbers
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, read_part
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip
from distill3d.data.walk import scene_name
from distill3d.errors import DataError

_WITHIN_S = 0.02
_STAMPED = "[0-9]*.[0-9]*.png"
_LICENCE = "Bonn: not verified; TUM: CC BY 4.0"


def find(root: Path) -> Sequence[Path]:
    """The folders of films."""
    return [folder.parent for folder in below(root, "rgb") if next(folder.glob(_STAMPED), None) is not None]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one film, counted in the order of their time stamps."""
    scene = scene_name(part.relative_to(root), root)
    full = options.mode == "full"
    trajectory = read_part("trajectory", part / "groundtruth.txt", _read_trajectory) if full else None
    depths = _stamped(part / "depth")
    depth_times = np.array([time for time, _ in depths])

    def row(item: tuple[int, tuple[float, Path]]) -> ManifestRow:
        frame, (time, photo) = item
        common: dict[str, Any] = {
            "dataset": "bonn",
            "scene": scene,
            "frame": frame,
            "timestamp": time,
            "licence": _LICENCE,
        }
        if trajectory is None:
            return photo_row(photo, root, **common)
        place = nearest_time(depth_times, time, _WITHIN_S)
        if place is None:
            raise DataError(f"{photo} has no depth map within {_WITHIN_S} s.")
        return photo_row(
            photo,
            root,
            world_from_camera=as_matrix(trajectory.nearest(time, within=_WITHIN_S)),
            depth=Ref(inside(depths[place][1], root), codec("png16", scale=1 / 5000)),
            scale="metric",
            **common,
        )

    return each_frame(enumerate(_stamped(part / "rgb")), row, lambda item: inside(item[1][1], root), on_skip)


def _stamped(folder: Path) -> list[tuple[float, Path]]:
    """Pictures named by seconds, in the order of time."""
    found = []
    for path in folder.glob(_STAMPED):
        try:
            found.append((float(path.stem), path))
        except ValueError:
            continue
    return sorted(found)


def _read_trajectory(path: Path) -> Trajectory:
    numbers = read_numbers(path)
    numbers = numbers[np.argsort(numbers[:, 0], kind="stable")]
    return Trajectory(numbers[:, 0], poses_from_quaternions(numbers[:, 1:8]).numpy())


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="Bonn RGB-D or TUM RGB-D",
    role="evaluation",
    url="https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset/ and https://cvg.cit.tum.de/data/datasets/rgbd-dataset",
    size="not verified",
    licence=_LICENCE,
    sharing="TUM: yes, with attribution; Bonn: not verified",
)
