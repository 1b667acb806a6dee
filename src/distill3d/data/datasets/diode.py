"""DIODE: laser scans indoors and outdoors, for single-image depth.

{train,val}/{indoors,outdoor}/scene_00021/scan_00189/00021_00189_indoors_200_010{.png,_depth.npy,_depth_mask.npy}

Depth is taken for planar, as everywhere; its makers do not say. The camera is one for all photos, with unequal focal
lengths (886.81, 927.06, principal point 512, 384 for 1024 x 768).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.listing import below, each_frame, inside, photo_row, required, scaled_pinhole
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.data.walk import scene_name

_SIZE = (768, 1024)


def find(root: Path) -> Sequence[Path]:
    """The folders of scans."""
    return below(root, "scene_[0-9]*/scan_[0-9]*", itself=True)


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The photos of one scan: single shots in many directions, counted in natural order."""
    common: dict[str, Any] = {
        "dataset": "diode",
        "scene": scene_name(part.relative_to(root), root),
        "ordered": False,
        "split": next((name for name in part.parts[::-1] if name in ("train", "val")), ""),
        "licence": "MIT",
    }

    def row(item: tuple[int, Path]) -> ManifestRow:
        frame, photo = item
        if options.mode == "images_only":
            return photo_row(photo, root, frame=frame, **common)
        size = photo_size(photo, upright=False)
        depth = required(part / f"{photo.stem}_depth.npy", "depth map")
        mask = required(part / f"{photo.stem}_depth_mask.npy", "mask of the depth map")
        return photo_row(
            photo,
            root,
            frame=frame,
            size=size,
            intrinsics=scaled_pinhole(886.81, 927.06, 512, 384, _SIZE, size),
            depth=Ref(inside(depth, root), "npy"),
            depth_mask=Ref(inside(mask, root), codec("mask-of-depth", of="npy", above=0.5)),
            scale="metric",
            **common,
        )

    photos = sorted(part.glob("*.png"), key=natural_key)
    return each_frame(enumerate(photos), row, lambda item: inside(item[1], root), on_skip)


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="DIODE",
    role="evaluation",
    url="https://diode-dataset.org",
    size="val 2.6 GB, train 81 GB",
    licence="MIT",
    sharing="yes, with the notice",
)
