"""NRGBD (Neural RGB-D): nine synthetic rooms.

<scene>/images/img0.png  <scene>/depth/depth0.png           numbers without zeros in front; millimetres
<scene>/poses.txt                                          four lines a frame, OpenGL axes; "nan" where tracking is lost

`poses.txt` is the truth. `trainval_poses.txt`, the estimate of a SLAM system, is not read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from distill3d.data.camera_files import read_numbers
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.listing import (
    as_matrix,
    below,
    each_frame,
    inside,
    photo_row,
    read_part,
    required,
    scaled_pinhole,
)
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.data.walk import scene_name
from distill3d.errors import DataError
from distill3d.geometry.conventions import opencv_pose

_FOCAL = 554.2562584220408
_SIZE = (480, 640)
_LICENCE = "unclear (not verified)"


def find(root: Path) -> Sequence[Path]:
    """The folders of scenes."""
    return [photo.parents[1] for photo in below(root, "images/img0.png")]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one scene, numbered as their files."""
    scene = scene_name(part.relative_to(root), root)
    full = options.mode == "full"
    poses = read_part("poses", part / "poses.txt", read_numbers).reshape(-1, 4, 4) if full else None

    def row(photo: Path) -> ManifestRow:
        number = int(photo.stem.removeprefix("img"))
        if poses is None:
            return photo_row(photo, root, dataset="nrgbd", scene=scene, frame=number, licence=_LICENCE)
        if number >= len(poses):
            raise DataError(f"{photo} has no pose: poses.txt ends after {len(poses)} frames.")
        size = photo_size(photo, upright=False)
        depth = required(part / f"depth/depth{number}.png", "depth map")
        return photo_row(
            photo,
            root,
            dataset="nrgbd",
            scene=scene,
            frame=number,
            size=size,
            intrinsics=scaled_pinhole(_FOCAL, _FOCAL, 320, 240, _SIZE, size),
            world_from_camera=as_matrix(opencv_pose(torch.from_numpy(poses[number]), "opengl")),
            depth=Ref(inside(depth, root), codec("png16", scale=0.001)),
            scale="metric",
            licence=_LICENCE,
        )

    photos = sorted(part.glob("images/img[0-9]*.png"), key=natural_key)
    return each_frame(photos, row, lambda photo: inside(photo, root), on_skip)


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="NRGBD (Neural RGB-D)",
    role="evaluation",
    url="https://github.com/dazinovic/neural-rgbd-surface-reconstruction",
    size="not verified",
    licence=_LICENCE,
    sharing="unclear: do not pass anything on",
)
