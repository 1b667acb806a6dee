"""nerfstudio and instant-ngp: a `transforms.json` beside the pictures, or Blender's `transforms_{train,val,test}.json`.

Poses in the file have the axes of OpenGL (x right, y up, z backward), in a world that nerfstudio may have turned: the
original one is brought back by `applied_transform`, or by what nerfstudio assumes where that key is absent and the
folder has a COLMAP model. Principal points count from the image's corner. A file with `"camera_convention": "opencv"`
has the axes of OpenCV.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.datasets import DatasetSpec, ScanOptions, counted
from distill3d.data.decode import PHOTO_SUFFIXES, photo_size
from distill3d.data.listing import as_matrix, each_frame, inside, photo_row
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import Distortion, ManifestRow, OnSkip, natural_key
from distill3d.data.walk import scene_name, visible_files
from distill3d.errors import DataError
from distill3d.files import read_json
from distill3d.geometry.conventions import opencv_pose

FILE = "transforms.json"
_SPLITS = {"transforms_train.json": "train", "transforms_val.json": "val", "transforms_test.json": "test"}
_ASSUMED_TRANSFORM = ((0.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, -1.0, 0.0))
"""What nerfstudio takes for `applied_transform` where a folder has a COLMAP model and the file does not say."""


def find(root: Path) -> Sequence[Path]:
    """Each `transforms.json`, or the folder of the split files where there is none."""
    if root.is_file():
        return [root] if root.name == FILE or root.name in _SPLITS else []
    files = [path for path in visible_files(root) if path.name == FILE or path.name in _SPLITS]
    whole = {path.parent for path in files if path.name == FILE}
    folders = {path.parent for path in files} - whole
    return sorted([*(folder / FILE for folder in whole), *folders], key=natural_key)


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one file (or of the files of the splits), in natural order of their pictures.

    Raises:
        DataError: a file is damaged, or its cameras are of a model that is not known.
    """
    folder = part if part.is_dir() else part.parent
    paths = [part] if part.is_file() else [folder / name for name in _SPLITS if (folder / name).is_file()]
    frames = []
    for path in paths:
        scene = _read_scene(path)
        splits = {name: split for split in ("train", "val", "test") for name in scene.get(f"{split}_filenames") or ()}
        for frame in scene["frames"]:
            split = splits.get(frame["file_path"], _SPLITS.get(path.name, ""))
            frames.append(({**scene, **frame}, split))
    frames.sort(key=lambda item: natural_key(item[0]["file_path"]))
    name = scene_name(folder.relative_to(root), root)
    rows = each_frame(
        enumerate(frames),
        lambda item: _row(*item[1], folder, root, name, item[0], full=options.mode == "full"),
        lambda item: (folder.relative_to(root) / str(item[1][0]["file_path"])).as_posix(),
        on_skip,
    )
    yield from rows


def _read_scene(path: Path) -> dict[str, Any]:
    try:
        scene = read_json(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{error}. Export the scene again.") from error
    frames = scene.get("frames") if isinstance(scene, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) and "file_path" in frame for frame in frames):
        raise DataError(f'{path} is no file of nerfstudio: expected a list of "frames" with a "file_path" in each.')
    return dict(scene)


def _row(
    frame: Mapping[str, Any], split: str, folder: Path, root: Path, name: str, number: int, *, full: bool
) -> ManifestRow:
    image = _picture(folder / str(frame["file_path"]))
    stated = (int(frame.get("h") or 0), int(frame.get("w") or 0))
    size = stated if all(stated) and full else photo_size(image, upright=not full)
    known: dict[str, Any] = {}
    if full:
        depth = frame.get("depth_file_path")
        known["intrinsics"] = as_matrix(_intrinsics(frame, *size))
        known["distortion"] = _distortion(frame)
        known["world_from_camera"] = as_matrix(_world_from_camera(frame, folder))
        known["depth"] = None if depth is None else _depth(folder / depth, frame, root)
    mask = frame.get("mask_path")
    return photo_row(
        image,
        root,
        dataset="nerfstudio",
        scene=name,
        frame=number,
        size=size,
        mask=None if mask is None else Ref(inside(folder / mask, root), "mask"),
        split=split,
        scale="sfm",
        **known,
    )


def _picture(named: Path) -> Path:
    """The file of a frame, whose name may lack its ending."""
    if named.is_file():
        return named
    for suffix in sorted(PHOTO_SUFFIXES):
        if (found := named.with_name(named.name + suffix)).is_file():
            return found
    raise DataError(f"{FILE} names {named}, which is not there")


def _world_from_camera(frame: Mapping[str, Any], folder: Path) -> Float[Tensor, "4 4"]:
    stored = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
    if frame.get("camera_convention") == "opencv":
        return stored
    applied = frame.get("applied_transform")
    if applied is None and (folder / "colmap/sparse/0").is_dir():
        applied = _ASSUMED_TRANSFORM
    stored_from_original = torch.eye(4, dtype=torch.float64)
    if applied is not None:
        stored_from_original[:3] = torch.tensor(applied, dtype=torch.float64)[:3]
    pose: Tensor = torch.linalg.inv(stored_from_original) @ opencv_pose(stored, "opengl")
    return pose


def _intrinsics(frame: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """From focal lengths, or the field of view as Blender writes it; the principal point the middle if absent."""
    fx = frame.get("fl_x") or (width / 2 / math.tan(float(frame["camera_angle_x"]) / 2))
    fy = frame.get("fl_y")
    if not fy:
        fy = height / 2 / math.tan(float(frame["camera_angle_y"]) / 2) if "camera_angle_y" in frame else fx
    cx, cy = float(frame.get("cx", width / 2)) - 0.5, float(frame.get("cy", height / 2)) - 0.5
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def _distortion(frame: Mapping[str, Any]) -> Distortion | None:
    model = str(frame.get("camera_model") or ("OPENCV_FISHEYE" if frame.get("is_fisheye") else "OPENCV"))
    value = {name: float(frame.get(name) or 0) for name in ("k1", "k2", "k3", "k4", "p1", "p2")}
    radial = tuple(value[name] for name in ("k1", "k2", "k3", "k4"))
    if model == "OPENCV_FISHEYE":
        return Distortion(model, radial)
    if model not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE"):
        raise DataError(f"a camera is of the model {model}, expected OPENCV, OPENCV_FISHEYE or PINHOLE")
    if model != "OPENCV" or not any(value.values()):
        return None
    tangential = (value["p1"], value["p2"])
    if value["k4"]:
        raise DataError(f"a camera of the model {model} has k4 = {value['k4']}, expected k1, k2, k3, p1 and p2 alone")
    if value["k3"]:
        return Distortion("FULL_OPENCV", (*radial[:2], *tangential, value["k3"], 0.0, 0.0, 0.0))
    return Distortion("OPENCV", (*radial[:2], *tangential))


def _depth(path: Path, frame: Mapping[str, Any], root: Path) -> Ref:
    """16-bit steps of a millimetre unless the file says otherwise; floats are in the unit of the scene."""
    where = inside(path, root)
    if path.suffix == ".npy":
        return Ref(where, "npy")
    return Ref(where, codec("png16", scale=float(frame.get("depth_unit_scale_factor", 1e-3))))


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="nerfstudio, instant-ngp or Blender scenes with a transforms.json",
    role="own",
    general=1,
    count=lambda parts: f"{counted(len(parts), 'scene')} with a {FILE}",
)
