"""MegaDepth: photos of famous places with depth from reconstruction.

MegaDepth_v1/<dddd>/dense<k>/{imgs/*.jpg,depths/*.h5}                   undistorted photos; also below phoenix/S6/zl548
MegaDepth_v1_SfM/<dddd>/sparse/manhattan/<k>/{cameras,images}.{txt,bin}  the model of the distorted originals; or
                                                                      unpacked into the same <dddd>

No intrinsics of the stored photos are shipped. They follow from the original's: COLMAP's undistortion keeps the focal
length and crops, and then the picture was resized. Depth files with negative values are maps of order, not of depth,
and are left out. Lengths have another unknown unit in each reconstruction.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.codecs.containers import open_hdf5
from distill3d.data.colmap_model import ColmapCamera, ColmapModel, read_model
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import PHOTO_SUFFIXES, photo_size
from distill3d.data.fit import Size
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.errors import DataError
from distill3d.geometry.cameras import resize_intrinsics
from distill3d.geometry.undistortion import undistorted_size

_LICENCE = "photos belong to their owners; data set CC BY 4.0 (not verified)"
_VALIDATION = {"0015", "0022"}
_LOOKED_AT = 16
"""Every so many rows of a depth map are looked at for negative values."""


def find(root: Path) -> Sequence[Path]:
    """The folders of reconstructions."""
    return [images.parent for images in below(root, "dense[0-9]*/imgs", depth=6, itself=True)]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The photos of one reconstruction, which show the same place in no order; counted in natural order."""
    place = part.resolve().parent.name
    scene = f"{place}/{part.resolve().name}"
    model = _find_model(part, root) if options.mode == "full" else None
    images = {image.name.rsplit("/", 1)[-1]: image for image in model.images} if model is not None else {}

    def row(item: tuple[int, Path]) -> ManifestRow:
        frame, photo = item
        common: dict[str, Any] = {
            "dataset": "megadepth",
            "scene": scene,
            "frame": frame,
            "ordered": False,
            "split": "val" if place in _VALIDATION else "train",
            "licence": _LICENCE,
        }
        if model is None:
            return photo_row(photo, root, **common)
        image = images.get(photo.name)
        if image is None:
            raise DataError(f"{photo} is not in the model of {scene}.")
        size = photo_size(photo, upright=False)
        depth = required(part / f"depths/{photo.stem}.h5", "depth map")
        _refuse_ordinal(depth)
        return photo_row(
            photo,
            root,
            size=size,
            intrinsics=as_matrix(stored_intrinsics(model.cameras[image.camera_id], size)),
            world_from_camera=as_matrix(image.world_from_camera),
            depth=Ref(inside(depth, root), codec("hdf5", key="depth")),
            scale="sfm",
            **common,
        )

    photos = [photo for photo in (part / "imgs").iterdir() if photo.suffix.lower() in PHOTO_SUFFIXES]
    numbered = enumerate(sorted(photos, key=natural_key))
    return each_frame(numbered, row, lambda item: inside(item[1], root), on_skip)


def stored_intrinsics(camera: ColmapCamera, size: Size) -> Float[Tensor, "3 3"]:
    """Intrinsics of the undistorted and resized photo, from the camera of its original.

    Args:
        camera: of the distorted original.
        size: (height, width) of the stored photo.
    """
    original = (camera.height, camera.width)
    intrinsics = torch.tensor(camera.intrinsics, dtype=torch.float64)
    lens = camera.distortion
    model, params = ("SIMPLE_RADIAL", (0.0,)) if lens is None else (lens.model, lens.params)
    flat = undistorted_size(intrinsics, model, params, original)
    # The crop keeps the principal point at its share of the picture.
    cropped = resize_intrinsics(intrinsics, original, flat)
    cropped[0, 0], cropped[1, 1] = intrinsics[0, 0], intrinsics[1, 1]
    return resize_intrinsics(cropped, flat, size)


def _find_model(part: Path, root: Path) -> ColmapModel:
    place, number = part.resolve().parent.name, part.resolve().name.removeprefix("dense")
    above = [part.parent, *(folder / "MegaDepth_v1_SfM" / place for folder in part.resolve().parents)]
    for folder in (base / "sparse/manhattan" / number for base in above):
        if folder.is_dir():
            return read_model(folder, points=False)
    raise DataError(
        f"There is no model of {place}/{part.name}: expected MegaDepth_v1_SfM/{place}/sparse/manhattan/{number} beside "
        f"{root} or above the pictures. Unpack MegaDepth_v1_SfM there, or use --mode images_only."
    )


def _refuse_ordinal(path: Path) -> None:
    with open_hdf5(path) as archive:
        if (archive["depth"][::_LOOKED_AT] < 0).any():
            raise DataError(f"{path} is an ordinal map (it has negative values), not depth.")


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="MegaDepth",
    role="training",
    url="https://www.cs.cornell.edu/projects/megadepth/",
    size="photos and depth 199 GB, models 667 GB (not verified)",
    licence=_LICENCE,
    sharing="no photos; depth and poses with attribution (not verified)",
)
