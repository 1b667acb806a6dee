"""BlendedMVS and BlendedMVG: 502 scenes rendered from reconstructions and blended with the photos they came from.

<24-hex id>/blended_images/00000000.jpg            and 00000000_masked.jpg, without background: left aside
<24-hex id>/cams/00000000_cam.txt                  MVSNet's camera
<24-hex id>/rendered_depth_maps/00000000.pfm

Lengths have another unknown unit in each scene. Pixel centres are taken for whole numbers, as everywhere; the makers do
not say.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill3d.data.camera_files import read_mvsnet_camera
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, required
from distill3d.data.refs import Ref
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.data.walk import scene_name

_LICENCE = "CC BY 4.0"


def find(root: Path) -> Sequence[Path]:
    """The folders of scenes."""
    return [images.parent for images in below(root, "blended_images")]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The views of one scene, numbered as their files; they are photos in no order of time."""
    scene = scene_name(part.relative_to(root), root)

    def row(photo: Path) -> ManifestRow:
        common: dict[str, Any] = {
            "dataset": "blendedmvs",
            "scene": scene,
            "frame": int(photo.stem),
            "ordered": False,
            "licence": _LICENCE,
        }
        if options.mode == "images_only":
            return photo_row(photo, root, **common)
        camera = required(part / f"cams/{photo.stem}_cam.txt", "camera")
        depth = required(part / f"rendered_depth_maps/{photo.stem}.pfm", "depth map")
        world_from_camera, intrinsics = read_mvsnet_camera(camera)
        return photo_row(
            photo,
            root,
            intrinsics=as_matrix(intrinsics),
            world_from_camera=as_matrix(world_from_camera),
            depth=Ref(inside(depth, root), "pfm"),
            scale="sfm",
            **common,
        )

    photos = [photo for photo in part.glob("blended_images/*.jpg") if photo.stem.isdecimal()]
    return each_frame(sorted(photos, key=natural_key), row, lambda photo: inside(photo, root), on_skip)


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="BlendedMVS",
    role="training",
    url="https://github.com/YoYo000/BlendedMVS",
    size="27.5 GB (113 scenes), + 81.5 GB and ++ 80 GB for all 502; high resolution 156 GB more",
    licence=_LICENCE,
    sharing="yes, with attribution: also depth and caches",
)
