"""KITTI depth: drives with sparse laser depth, annotated over several sweeps.

<date>/<date>_drive_0002_sync/image_02/data/0000000005.png           raw pictures, anywhere up to three folders down
<date>/calib_cam_to_cam.txt                                         camera P_rect_02
data_depth_annotated/{train,val}/<drive>/proj_depth/groundtruth/image_02/0000000005.png

val_selection_cropped/{image,groundtruth_depth}/<drive>_{image,groundtruth_depth}_0000000005_image_02.png
                     /intrinsics/<drive>_image_0000000005_image_02.txt           nine numbers, for the cropped picture

The second is the selection of the benchmark: pictures of both colour cameras, each drive and camera a scene. Its file
names are known from hearsay (not verified).

Depth is a sixteen-bit number / 256 in metres, 0 = none. The first and the last five frames of a drive have none.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.camera_files import read_numbers
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, read_part, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.errors import DataError

_CAMERA = "image_02"
_DEPTH = codec("png16", scale=1 / 256)
_SELECTION = "val_selection_cropped"
_SELECTED = re.compile(r"(\d.*_sync)_image_(\d+)_(image_0[23])\.png")
_LICENCE = "CC BY-NC-SA 3.0"


def find(root: Path) -> Sequence[Path]:
    """The folders of raw drives, or that of the selection."""
    selection = below(root, f"{_SELECTION}/image", itself=True)
    return [folder.parent for folder in selection] + [
        folder.parents[1] for folder in below(root, f"[0-9]*_drive_*_sync/{_CAMERA}/data", itself=True)
    ]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one drive, or of the selection, numbered as their files."""
    if part.resolve().name == _SELECTION:
        yield from _read_selection(part, root, options, on_skip)
        return
    split, depths = _annotated(part, root)
    full = options.mode == "full"
    camera = read_part("calibration", part.parent / "calib_cam_to_cam.txt", _read_projection) if full else None

    def row(photo: Path) -> ManifestRow:
        common: dict[str, Any] = {
            "dataset": "kitti",
            "scene": part.name,
            "frame": int(photo.stem),
            "split": split,
            "licence": _LICENCE,
        }
        if camera is None:
            return photo_row(photo, root, **common)
        if depths is None:
            raise DataError(f"There is no annotated depth of {part.name} below {root}. Use --mode images_only.")
        depth = Ref(inside(required(depths / photo.name, "depth map"), root), _DEPTH)
        return photo_row(photo, root, intrinsics=as_matrix(camera), depth=depth, scale="metric", **common)

    photos = sorted(part.glob(f"{_CAMERA}/data/[0-9]*.png"), key=natural_key)
    yield from each_frame(photos, row, lambda photo: inside(photo, root), on_skip)


def _read_selection(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    def row(photo: Path) -> ManifestRow:
        found = _SELECTED.fullmatch(photo.name)
        if found is None:
            raise DataError(
                f"{photo} is not called like a picture of the selection, <drive>_image_<frame>_image_02.png."
            )
        drive, frame, camera = found.groups()
        common: dict[str, Any] = {
            "dataset": "kitti",
            "scene": f"{drive}/{camera}",
            "frame": int(frame),
            "split": "val",
            "ordered": False,
            "licence": _LICENCE,
        }
        if options.mode == "images_only":
            return photo_row(photo, root, **common)
        depth = part / "groundtruth_depth" / f"{drive}_groundtruth_depth_{frame}_{camera}.png"
        numbers = read_numbers(required(part / "intrinsics" / f"{photo.stem}.txt", "camera"))
        return photo_row(
            photo,
            root,
            intrinsics=as_matrix(numbers.reshape(3, 3)),
            depth=Ref(inside(required(depth, "depth map"), root), _DEPTH),
            scale="metric",
            **common,
        )

    photos = sorted((part / "image").glob("*.png"), key=natural_key)
    return each_frame(photos, row, lambda photo: inside(photo, root), on_skip)


def _annotated(part: Path, root: Path) -> tuple[str, Path | None]:
    """Split of a drive and the folder of its depth maps, wherever the archive was unpacked."""
    for split in ("train", "val"):
        for place in (root / "data_depth_annotated" / split, root / split, part.parent.parent / split):
            folder = place / part.name / "proj_depth/groundtruth" / _CAMERA
            if folder.is_dir():
                return split, folder
    return "", None


def _read_projection(path: Path) -> Float[Tensor, "3 3"]:
    """Intrinsics of the rectified left colour camera."""
    key = f"P_rect_{_CAMERA[-2:]}:"
    for line in path.read_text().splitlines():
        if line.startswith(key):
            numbers = np.array(line.removeprefix(key).split(), dtype=np.float64)
            return torch.from_numpy(numbers.reshape(3, 4)[:, :3].copy())
    raise ValueError(f"it has no line {key}")


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="KITTI depth",
    role="evaluation",
    url="https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_prediction",
    size="not verified",
    licence=_LICENCE,
    sharing="non-commercially, under the same licence",
)
