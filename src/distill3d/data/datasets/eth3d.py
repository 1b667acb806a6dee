"""ETH3D, high-resolution multi-view: photos and laser scans of 13 places.

<scene>/images/dslr_images/DSC_0219.JPG                     distorted photos
<scene>/dslr_calibration_jpg/{cameras,images}.txt           COLMAP model, metric
<scene>/ground_truth_depth/dslr_images/DSC_0219.JPG         no picture: float32 rows, infinite where nothing is known

Where the undistorted copies of Pi3 lie beside them, these are taken instead:

<scene>/images/custom_undistorted/*.JPG  ground_truth_depth/custom_undistorted/*.JPG  custom_undistorted_cam/*.npz

The depth of a distorted photo is that of its distorted pixels: such rows carry the lens, THIN_PRISM_FISHEYE.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from distill3d.data.colmap_model import read_model
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.fit import Size
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import Distortion, ManifestRow, Matrix, OnSkip, natural_key
from distill3d.data.walk import scene_name
from distill3d.errors import DataError
from distill3d.geometry.cameras import resize_intrinsics
from distill3d.geometry.poses import invert_pose

_FLAT, _BENT = "custom_undistorted", "dslr_images"
_LICENCE = "CC BY-NC-SA 4.0"
_Camera = tuple[Matrix, Matrix, Distortion | None]


def find(root: Path) -> Sequence[Path]:
    """The folders of scenes."""
    found = below(root, f"images/{_BENT}", f"images/{_FLAT}")
    return sorted({folder.parents[1] for folder in found}, key=natural_key)


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The photos of one scene, numbered as their files."""
    scene = scene_name(part.relative_to(root), root)
    kind = _FLAT if (part / "images" / _FLAT).is_dir() else _BENT
    camera_of: Callable[[Path, Size], _Camera] | None = None
    if options.mode == "full":
        camera_of = _undistorted_camera if kind == _FLAT else _model_cameras(part)

    def row(photo: Path) -> ManifestRow:
        frame = int(photo.stem.rsplit("_", 1)[-1])
        if camera_of is None:
            return photo_row(photo, root, dataset="eth3d", scene=scene, frame=frame, licence=_LICENCE)
        height, width = size = photo_size(photo, upright=False)
        intrinsics, world_from_camera, distortion = camera_of(photo, size)
        depth = required(part / "ground_truth_depth" / kind / photo.name, "depth map")
        return photo_row(
            photo,
            root,
            dataset="eth3d",
            scene=scene,
            frame=frame,
            size=size,
            intrinsics=intrinsics,
            distortion=distortion,
            world_from_camera=world_from_camera,
            depth=Ref(inside(depth, root), codec("raw", dtype="<f4", height=height, width=width)),
            scale="metric",
            licence=_LICENCE,
        )

    photos = [photo for photo in (part / "images" / kind).iterdir() if photo.suffix.lower() in (".jpg", ".png")]
    return each_frame(sorted(photos, key=natural_key), row, lambda photo: inside(photo, root), on_skip)


def _undistorted_camera(photo: Path, size: Size) -> _Camera:
    path = required(photo.parents[2] / f"{_FLAT}_cam/{photo.stem}.npz", "camera")
    with np.load(path, allow_pickle=False) as archive:
        intrinsics, camera_from_world = (
            torch.from_numpy(archive[key]).double() for key in ("intrinsics", "extrinsics")
        )
    whole = torch.eye(4, dtype=torch.float64)
    whole[: len(camera_from_world)] = camera_from_world
    return as_matrix(intrinsics), as_matrix(invert_pose(whole)), None


def _model_cameras(part: Path) -> Callable[[Path, Size], _Camera]:
    model = read_model(part / "dslr_calibration_jpg", points=False)
    images = {Path(image.name).name: image for image in model.images}

    def camera_of(photo: Path, size: Size) -> _Camera:
        image = images.get(photo.name)
        if image is None:
            raise DataError(f"{photo} is not in the model of {part.name}.")
        camera = model.cameras[image.camera_id]
        intrinsics = torch.tensor(camera.intrinsics, dtype=torch.float64)
        moved = resize_intrinsics(intrinsics, (camera.height, camera.width), size)
        return as_matrix(moved), as_matrix(image.world_from_camera), camera.distortion

    return camera_of


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="ETH3D (high resolution, DSLR)",
    role="evaluation",
    url="https://www.eth3d.net/datasets",
    size="not verified (13 scenes, 454 photos)",
    licence=_LICENCE + " (not verified)",
    sharing="non-commercially, under the same licence (not verified)",
)
