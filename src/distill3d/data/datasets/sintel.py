"""Sintel: short scenes of an animated film with depth and cameras.

training/{final,clean}/<scene>/frame_0001.png
training/depth/<scene>/frame_0001.dpt  training/camdata_left/<scene>/frame_0001.cam      little-endian binary

`final` is taken (blur, haze), or `clean` where it is absent. Units are about metres, and are not said to be. The sky is
merely far away; evaluations leave out what is 70 units away or more.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, required
from distill3d.data.refs import Ref
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.geometry.poses import invert_pose, pose_from_rt

_TAG = 202021.25
_CAM_BYTES = 4 + 8 * (9 + 12)
_LICENCE = "free for research; the film is CC BY 3.0 (not verified)"


def find(root: Path) -> Sequence[Path]:
    """The folders of scenes, of one of the two renderings."""
    for rendering in ("final", "clean"):
        if found := below(root, f"{rendering}/*/frame_0001.png", depth=2):
            return [photo.parent for photo in found]
    return []


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one scene, numbered as their files."""
    training, scene = part.parents[1], part.name

    def row(photo: Path) -> ManifestRow:
        common: dict[str, Any] = {
            "dataset": "sintel",
            "scene": scene,
            "frame": int(photo.stem.removeprefix("frame_")),
            "licence": _LICENCE,
        }
        if options.mode == "images_only":
            return photo_row(photo, root, **common)
        depth = required(training / "depth" / scene / f"{photo.stem}.dpt", "depth map")
        camera = required(training / "camdata_left" / scene / f"{photo.stem}.cam", "camera")
        intrinsics, world_from_camera = read_cam(camera.read_bytes())
        return photo_row(
            photo,
            root,
            intrinsics=as_matrix(intrinsics),
            world_from_camera=as_matrix(world_from_camera),
            depth=Ref(inside(depth, root), "dpt"),
            scale="sfm",
            **common,
        )

    photos = sorted(part.glob("frame_[0-9]*.png"), key=natural_key)
    return each_frame(photos, row, lambda photo: inside(photo, root), on_skip)


def read_cam(data: bytes) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "4 4"]]:
    """Intrinsics and `world_from_camera` of a `.cam` file: a tag, 3x3 and (camera from world) 3x4 float64.

    Raises:
        ValueError: it is something else.
    """
    if len(data) != _CAM_BYTES or struct.unpack_from("<f", data)[0] != _TAG:
        raise ValueError(f"{len(data)} bytes without the tag {_TAG}, expected {_CAM_BYTES} bytes that start with it")
    numbers = torch.from_numpy(np.frombuffer(data, "<f8", offset=4).copy())
    camera_from_world = numbers[9:].reshape(3, 4)
    return numbers[:9].reshape(3, 3), invert_pose(pose_from_rt(camera_from_world[:, :3], camera_from_world[:, 3]))


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="Sintel",
    role="evaluation",
    url="http://sintel.is.tue.mpg.de/depth",
    size="not verified (pictures, and MPI-Sintel-depth-training-20150305.zip)",
    licence=_LICENCE,
    sharing="not verified",
)
