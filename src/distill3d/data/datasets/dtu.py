"""DTU: objects on a table, 49 views each, in the layout of MVSNet's test set.

scan1/images/00000000.jpg  scan1/cams/00000000_cam.txt      millimetres
scan1/depths/00000000.npy  scan1/binary_masks/00000000.png  rendered and masked by Spann3R, not official

Rows are in metres. The mask is trusted from half white on, less a rim of ten pixels, as published evaluations take it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from distill3d.data.camera_files import read_mvsnet_camera
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.data.walk import scene_name

_METRES = 0.001
_RIM = 10
_LICENCE = "free for research (not verified)"


def find(root: Path) -> Sequence[Path]:
    """The folders of scans."""
    return [images.parent for images in below(root, "scan[0-9]*/images", itself=True)]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The views of one scan, numbered as their files."""
    scene = scene_name(part.relative_to(root), root)

    def row(photo: Path) -> ManifestRow:
        if options.mode == "images_only":
            return photo_row(photo, root, dataset="dtu", scene=scene, frame=int(photo.stem), licence=_LICENCE)
        size = photo_size(photo, upright=False)
        camera = required(part / f"cams/{photo.stem}_cam.txt", "camera")
        world_from_camera, intrinsics = read_mvsnet_camera(camera)
        world_from_camera[:3, 3] *= _METRES
        mask = part / f"binary_masks/{photo.stem}.png"
        trusted = codec("eroded-mask", above=127, square=_RIM, height=size[0], width=size[1])
        return photo_row(
            photo,
            root,
            dataset="dtu",
            scene=scene,
            frame=int(photo.stem),
            size=size,
            intrinsics=as_matrix(intrinsics),
            world_from_camera=as_matrix(world_from_camera),
            depth=_depth(part, photo.stem, root),
            depth_mask=Ref(inside(mask, root), trusted) if mask.is_file() else None,
            scale="metric",
            licence=_LICENCE,
        )

    photos = sorted(part.glob("images/[0-9]*.jpg"), key=natural_key)
    return each_frame(photos, row, lambda photo: inside(photo, root), on_skip)


def _depth(part: Path, stem: str, root: Path) -> Ref:
    pfm = part / f"depths/{stem}.pfm"
    if pfm.is_file():
        return Ref(inside(pfm, root), codec("pfm", scale=_METRES))
    return Ref(inside(required(part / f"depths/{stem}.npy", "depth map"), root), codec("npy", scale=_METRES))


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="DTU",
    role="evaluation",
    url="https://roboimagedata.compute.dtu.dk/?page_id=36 (images and cameras; depth and masks: Spann3R's bundle)",
    size="not verified",
    licence=_LICENCE,
    sharing="not verified",
)
