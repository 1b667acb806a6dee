"""iBims-1: a hundred indoor photos with laser depth, for single-image depth.

ibims1_core_raw/{rgb,depth,mask_invalid,mask_transp}/<name>.png  calib/<name>.txt   fx,fy,cx,cy

Depth is value * 50 / 65535 metres (the readme that comes with it states the inverse); 0 and 65535 are none. A pixel
counts where both masks are set.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from distill3d.data.camera_files import read_numbers
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.errors import DataError

_STEP_M = 50 / 65535
_LICENCE = "CC BY-NC-SA 4.0 (not verified)"


def find(root: Path) -> Sequence[Path]:
    """The folder of the raw core."""
    return [photos.parent for photos in below(root, "ibims1_core_raw/rgb", itself=True)]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """Each photo is a scene of its own."""

    def row(photo: Path) -> ManifestRow:
        common: dict[str, Any] = {
            "scene": photo.stem,
            "frame": 0,
            "ordered": False,
            "split": "test",
            "licence": _LICENCE,
        }
        if options.mode == "images_only":
            return photo_row(photo, root, dataset="ibims1", **common)
        depth = required(part / "depth" / photo.name, "depth map")
        masks = [required(part / kind / photo.name, "mask") for kind in ("mask_invalid", "mask_transp")]
        both = codec("all-masks", beside=f"../mask_transp/{photo.name}")
        return photo_row(
            photo,
            root,
            dataset="ibims1",
            intrinsics=as_matrix(_read_camera(required(part / f"calib/{photo.stem}.txt", "camera"))),
            depth=Ref(inside(depth, root), codec("png16", scale=_STEP_M, invalid=65535)),
            depth_mask=Ref(inside(masks[0], root), both),
            scale="metric",
            **common,
        )

    photos = sorted(part.glob("rgb/*.png"), key=natural_key)
    return each_frame(photos, row, lambda photo: inside(photo, root), on_skip)


def _read_camera(path: Path) -> torch.Tensor:
    numbers = read_numbers(path).ravel().tolist()
    if len(numbers) != 4:
        raise DataError(f"{path} holds {len(numbers)} numbers, expected fx,fy,cx,cy.")
    fx, fy, cx, cy = numbers
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="iBims-1",
    role="evaluation",
    url="https://www.asg.ed.tum.de/lmf/ibims1/",
    size="not verified",
    licence=_LICENCE,
    sharing="non-commercially, under the same licence (not verified)",
)
