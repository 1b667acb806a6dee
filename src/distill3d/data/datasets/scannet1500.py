"""ScanNet-1500: 1500 pairs of frames of ScanNet's test scans, the usual test of relative pose.

test.npz, intrinsics.npz                                   pairs with their truth, cameras (public)
scannet_test_1500/scene0707_00/color/15.jpg  pose/15.txt  depth/15.png

Poses are metric `world_from_camera`, depth is in millimetres. The cameras of `intrinsics.npz` are for pictures of
640 x 480, scaled plainly from the original, and are scaled plainly to the pictures at hand. Without it the camera of
`intrinsic/intrinsic_depth.txt` is taken, which exports of ScanNet have.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.camera_files import read_numbers, read_pose
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, read_part, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.errors import DataError

_SIZE = (480, 640)
_LICENCE = "ScanNet terms of use"


@dataclass(frozen=True)
class PosePair:
    """Two frames of a scan and what lies between them."""

    scene: str
    """As ScanNet names it: "scene0707_00"."""
    frames: tuple[int, int]
    view1_from_view0: Float[Tensor, "4 4"]
    """Takes points of the first camera to the second; metres."""


def find(root: Path) -> Sequence[Path]:
    """The folders of scans."""
    return [folder.parent for folder in below(root, "scene[0-9]*_[0-9]*/color", itself=True)]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one scan, numbered as their files."""
    scene = part.resolve().name
    camera = _camera(part, root) if options.mode == "full" else None

    def row(photo: Path) -> ManifestRow:
        common: dict[str, Any] = {
            "dataset": "scannet1500",
            "scene": scene,
            "frame": int(photo.stem),
            "split": "test",
            "licence": _LICENCE,
        }
        if camera is None:
            return photo_row(photo, root, **common)
        height, width = size = photo_size(photo, upright=False)
        stretch = torch.tensor([width / _SIZE[1], height / _SIZE[0], 1.0], dtype=torch.float64)
        depth = required(part / f"depth/{photo.stem}.png", "depth map")
        return photo_row(
            photo,
            root,
            size=size,
            intrinsics=as_matrix(stretch[:, None] * camera),
            world_from_camera=as_matrix(read_pose(required(part / f"pose/{photo.stem}.txt", "pose"))),
            depth=Ref(inside(depth, root), codec("png16", scale=0.001)),
            scale="metric",
            **common,
        )

    photos = sorted(part.glob("color/[0-9]*.jpg"), key=natural_key)
    return each_frame(photos, row, lambda photo: inside(photo, root), on_skip)


def read_pairs(path: Path) -> list[PosePair]:
    """The pairs of `test.npz`.

    Raises:
        DataError: it is missing or holds something else.
    """
    with read_part("pairs", path, lambda file: np.load(file, allow_pickle=False)) as archive:
        if not {"name", "rel_pose"} <= set(archive.files):
            raise DataError(f"{path} holds {archive.files}, expected name and rel_pose. It is not ScanNet-1500's list.")
        names, poses = archive["name"], archive["rel_pose"]
    relative = torch.eye(4, dtype=torch.float64).repeat(len(names), 1, 1)
    relative[:, :3] = torch.from_numpy(poses.astype(np.float64)).reshape(-1, 3, 4)
    return [
        PosePair(f"scene{scan:04d}_{sub:02d}", (first, second), pose)
        for (scan, sub, first, second), pose in zip(names.tolist(), relative, strict=True)
    ]


def _camera(part: Path, root: Path) -> Float[Tensor, "3 3"]:
    """Intrinsics for pictures of 640 x 480."""
    folders = [part, *part.parents]
    for folder in folders[: folders.index(root) + 1]:
        listed = folder / "intrinsics.npz"
        if listed.is_file():
            with read_part("cameras", listed, lambda file: np.load(file, allow_pickle=False)) as archive:
                if part.name in archive.files:
                    return torch.from_numpy(archive[part.name].astype(np.float64))
    exported = read_part("camera", part / "intrinsic/intrinsic_depth.txt", read_numbers)
    return torch.from_numpy(exported[:3, :3])


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="ScanNet-1500",
    role="evaluation",
    url="https://github.com/zju3dv/LoFTR (pairs and cameras); images of ScanNet: http://www.scan-net.org",
    size="not verified",
    licence=_LICENCE,
    sharing="no redistribution of images; the lists of pairs and cameras are public",
)
