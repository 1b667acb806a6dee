"""ARKitScenes: rooms filmed with a tablet that has a laser.

raw/{Training,Validation}/<video>/vga_wide/<video>_<seconds>.png              640 x 480 at 30 a second
                        .../vga_wide_intrinsics/<video>_<seconds>.pincam      w h fx fy cx cy, to a millisecond
                        .../{lowres_depth,confidence}/<video>_<seconds>.png   millimetres, 256 x 192; 0, 1 or 2 (high)
                        .../lowres_wide.traj                                  time, axis-angle and translation of
                                                                              camera from world, 10 a second

Poses lie between those of the trajectory: turned evenly, moved straight, never over a hole of more than 0.15 s. Where
`vga_wide` is absent the pictures of `lowres_wide` are taken. Pictures are stored as the sensor lies, whatever way the
device was held; `upright` turns all of a video by the quarter turns that its poses ask for (the world's z points up);
without a trajectory it stays as it is.
Depth of low confidence (0) is not to be trusted.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from distill3d.data.camera_files import Trajectory, nearest_time, read_numbers
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, read_part
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip
from distill3d.errors import DataError
from distill3d.geometry.cameras import resize_intrinsics, turn_camera, turns_to_upright
from distill3d.geometry.poses import invert_pose, pose_from_rt

_WIDEST_HOLE_S = 0.15
_CLOCK_S = 0.001
_UP = torch.tensor([0.0, 0.0, 1.0])
_LICENCE = "Apple's licence of ARKitScenes (non-commercial; commercial below 700 million users since 2024)"
_SPLITS = {"Training": "train", "Validation": "val", "Test": "val"}


def find(root: Path) -> Sequence[Path]:
    """The folders of videos."""
    for pictures in ("vga_wide", "lowres_wide"):
        if found := below(root, f"[0-9]*/{pictures}", itself=True):
            return [folder.parent for folder in found]
    return []


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one video, counted in the order of their time stamps."""
    video = part.resolve().name
    kind = "vga_wide" if (part / "vga_wide").is_dir() else "lowres_wide"
    full = options.mode == "full"
    path = part / "lowres_wide.traj"
    needed = full or (options.upright and path.is_file())
    trajectory = read_part("trajectory", path, _read_trajectory) if needed else None
    cameras, depths = _Stamped(part / f"{kind}_intrinsics"), _Stamped(part / "lowres_depth")
    confidences = _Stamped(part / "confidence")
    turns = 0
    if trajectory is not None and options.upright:
        turns = turns_to_upright(torch.from_numpy(trajectory.world_from_camera), _UP)

    def row(item: tuple[int, tuple[float, Path]]) -> ManifestRow:
        frame, (time, photo) = item
        common: dict[str, Any] = {
            "dataset": "arkitscenes",
            "scene": video,
            "frame": frame,
            "timestamp": time,
            "split": _SPLITS.get(part.parent.name, ""),
            "licence": _LICENCE,
        }
        size = photo_size(photo, upright=False)
        turned = {"turns": turns} if turns else {}
        common |= {
            "image": Ref(inside(photo, root), codec("image", **turned)),
            "size": size[::-1] if turns % 2 else size,
        }
        if trajectory is None or not full:
            return photo_row(photo, root, **common)
        intrinsics, official = _read_pincam(cameras.at(time, "camera"))
        intrinsics, pose = turn_camera(
            resize_intrinsics(intrinsics, official, size), trajectory.at(time, widest=_WIDEST_HOLE_S), size, turns
        )
        return photo_row(
            photo,
            root,
            intrinsics=as_matrix(intrinsics),
            world_from_camera=as_matrix(pose),
            depth=Ref(inside(depths.at(time, "depth map"), root), codec("png16", scale=0.001, **turned)),
            depth_mask=_trusted(confidences, time, root, turned),
            scale="metric",
            **common,
        )

    photos = enumerate(zip(*_Stamped(part / kind).in_order(), strict=True))
    return each_frame(photos, row, lambda item: inside(item[1][1], root), on_skip)


def _trusted(confidences: "_Stamped", time: float, root: Path, turned: dict[str, int]) -> Ref | None:
    """Where depth is of medium or high confidence; not known where the map was not downloaded."""
    path = confidences.find(time)
    return None if path is None else Ref(inside(path, root), codec("mask", above=0, **turned))


class _Stamped:
    """The files of a folder, by the seconds in their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = []
        for path in folder.glob("*_*.*") if folder.is_dir() else ():
            try:
                found.append((float(path.stem.rsplit("_", 1)[1]), path))
            except ValueError:
                continue
        found.sort()
        self._times = np.array([time for time, _ in found])
        self._paths = [path for _, path in found]

    def in_order(self) -> tuple[list[float], list[Path]]:
        """Seconds and files."""
        return self._times.tolist(), self._paths

    def at(self, time: float, what: str) -> Path:
        """The file of a moment, give or take a millisecond.

        Raises:
            DataError: there is none.
        """
        if (path := self.find(time)) is None:
            raise DataError(f"There is no {what} of {time:.3f} s in {self._folder}.")
        return path

    def find(self, time: float) -> Path | None:
        """The file of a moment, if there is one."""
        place = nearest_time(self._times, time, _CLOCK_S)
        return None if place is None else self._paths[place]


def _read_trajectory(path: Path) -> Trajectory:
    numbers = read_numbers(path)
    numbers = numbers[np.argsort(numbers[:, 0], kind="stable")]
    turns = torch.from_numpy(Rotation.from_rotvec(numbers[:, 1:4]).as_matrix())
    camera_from_world = pose_from_rt(turns, torch.from_numpy(numbers[:, 4:7].copy()))
    return Trajectory(numbers[:, 0], invert_pose(camera_from_world).numpy())


def _read_pincam(path: Path) -> tuple[Float[Tensor, "3 3"], tuple[int, int]]:
    """Intrinsics, and the (height, width) that they are for."""
    numbers = read_numbers(path).ravel().tolist()
    if len(numbers) != 6:
        raise ValueError(f"{path} holds {len(numbers)} numbers, expected w h fx fy cx cy")
    width, height, fx, fy, cx, cy = numbers
    intrinsics = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return intrinsics, (int(height), int(width))


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="ARKitScenes",
    role="training",
    url="https://github.com/apple/ARKitScenes",
    size="more than 7 TB with all assets of `raw`; vga_wide, its intrinsics, lowres_depth and the trajectory suffice",
    licence=_LICENCE,
    sharing="non-commercially, with the notice",
)
