"""TartanAir, versions 1 and 2: flights through rendered worlds.

1: <world>/{Easy,Hard}/P000/{image_left/000000_left.png,depth_left/000000_left_depth.npy,pose_left.txt}
2: <world>/Data_{easy,hard}/P000/{image_lcam_front/000000_lcam_front.png,depth_lcam_front/000000_lcam_front_depth.png,
   pose_lcam_front.txt}, for twelve cameras {l,r}cam_{front,back,left,right,top,bottom}

Poses are lines of `tx ty tz qx qy qz qw` of a camera whose axes are forward, right and down; the world keeps its axes
(z down). Depth is planar and in metres; from 1000 m on it is the sky.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill3d.data.camera_files import poses_from_quaternions, read_numbers
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, read_part, required, scaled_pinhole
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.errors import DataError
from distill3d.geometry.conventions import opencv_pose

_SKY_M = 1000
_LICENCE = "CC BY 4.0"


def find(root: Path) -> Sequence[Path]:
    """The folders of pictures of one camera."""
    flights = ("Easy/P[0-9]*", "Hard/P[0-9]*", "Data_easy/P[0-9]*", "Data_hard/P[0-9]*")
    cameras = ("image_left", "image_right", "image_[lr]cam_*")
    patterns = [f"{flight}/{camera}" for flight in flights for camera in cameras]
    # Version 1 may be unpacked into a folder of the same name in itself.
    return below(root, *patterns, depth=3)


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one camera of one flight, numbered as their files."""
    flight, camera = part.parent, part.name.removeprefix("image_")
    second = "lcam_" in camera or "rcam_" in camera
    scene = _scene(flight, root) + (f"/{camera}" if second or camera != "left" else "")
    full = options.mode == "full"
    poses = read_part("poses", flight / f"pose_{camera}.txt", read_numbers) if full else None
    if poses is not None and poses.shape[1] != 7:
        raise DataError(f"{flight}/pose_{camera}.txt has {poses.shape[1]} numbers a line, expected 7.")
    world_from_camera = None if poses is None else opencv_pose(poses_from_quaternions(poses), "ned")
    official, centre = ((640, 640), (319.5, 319.5)) if second else ((480, 640), (319.5, 239.5))
    depth_codec, suffix = ("float32-png", "png") if second else ("npy", "npy")

    def row(photo: Path) -> ManifestRow:
        frame = int(photo.stem.split("_")[0])
        common: dict[str, Any] = {"dataset": "tartanair", "scene": scene, "frame": frame, "licence": _LICENCE}
        if world_from_camera is None:
            return photo_row(photo, root, **common)
        if frame >= len(world_from_camera):
            raise DataError(f"{photo} has no pose: pose_{camera}.txt ends after {len(world_from_camera)} lines.")
        size = photo_size(photo, upright=False)
        depth = inside(required(flight / f"depth_{camera}/{photo.stem}_depth.{suffix}", "depth map"), root)
        return photo_row(
            photo,
            root,
            size=size,
            intrinsics=scaled_pinhole(320, 320, *centre, official, size),
            world_from_camera=as_matrix(world_from_camera[frame]),
            depth=Ref(depth, codec(depth_codec, far=_SKY_M)),
            sky=Ref(depth, codec("mask-of-depth", of=depth_codec, above=_SKY_M - 1e-3)),
            scale="metric",
            **common,
        )

    photos = sorted(part.glob("[0-9]*.png"), key=natural_key)
    return each_frame(photos, row, lambda photo: inside(photo, root), on_skip)


def _scene(flight: Path, root: Path) -> str:
    """The flight's path, the world named once where unpacking has doubled it."""
    return re.sub(r"(^|/)([^/]+)/\2(?=/(?:Easy|Hard)/)", r"\1\2", inside(flight, root))


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="TartanAir",
    role="training",
    url="https://theairlab.org/tartanair-dataset/ and https://tartanair.org (v2)",
    size="v1: left pictures 141 GB and depth 69 GB of 3 TB; v2: front left 833 GB and 380 GB of 55 TB",
    licence=_LICENCE + " (v1: not verified)",
    sharing="yes, with attribution",
)
