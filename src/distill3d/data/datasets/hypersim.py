"""Hypersim: rendered interiors, with the exact pinhole of each scene.

ai_001_001/_detail/metadata_scene.csv                                metres per asset unit
ai_001_001/_detail/cam_00/camera_keyframe_{positions,orientations}.hdf5
ai_001_001/images/scene_cam_00_final_hdf5/frame.0000.color.hdf5      linear colours
ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.{depth_meters,render_entity_id}.hdf5
ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg  taken where the linear colours are absent
metadata_camera_parameters.csv, metadata_images_split_scene_v1.csv   from the repository, into the root (or where its
                                                                    contrib/mikeroberts3000/ and analysis/ keep them)

`depth_meters` is the distance to the camera. In most scenes the image plane is tilted against the lens: the linear map
from pixels to rays is split into a pinhole with skew and a turn of the camera, which is exact for every scene. Colours
get the official tone curve when they are read. Frames marked as no part of the public release are left out.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.codecs.containers import open_hdf5
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.listing import as_matrix, below, each_frame, inside, read_part, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.errors import DataError
from distill3d.geometry.conventions import opencv_pose, pinhole_from_rays
from distill3d.geometry.poses import pose_from_rt

_LICENCE = "CC BY-SA 3.0"
_CAMERAS = ("metadata_camera_parameters.csv", "contrib/mikeroberts3000/metadata_camera_parameters.csv")
_SPLITS = (
    "metadata_images_split_scene_v1.csv",
    "analysis/metadata_images_split_scene_v1.csv",
    "evermotion_dataset/analysis/metadata_images_split_scene_v1.csv",
)


def find(root: Path) -> Sequence[Path]:
    """The folders of scenes."""
    return [images.parent for images in below(root, "ai_[0-9]*_[0-9]*/images", itself=True)]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of all cameras of one scene, numbered as their files."""
    scene = part.resolve().name
    splits = _read_splits(_beside(root, _SPLITS), scene)
    for camera in sorted({_camera(path) for path in (part / "images").glob("scene_cam_*_final_*")}, key=natural_key):
        yield from _read_camera(part, root, scene, camera, splits, options, on_skip)


def _read_camera(
    part: Path,
    root: Path,
    scene: str,
    camera: str,
    splits: dict[tuple[str, int], str],
    options: ScanOptions,
    on_skip: OnSkip,
) -> Iterator[ManifestRow]:
    colours = part / f"images/scene_{camera}_final_hdf5"
    previews = part / f"images/scene_{camera}_final_preview"
    geometry = part / f"images/scene_{camera}_geometry_hdf5"
    numbers = {_number(path) for path in colours.glob("frame.*.color.hdf5")}
    numbers |= {_number(path) for path in previews.glob("frame.*.tonemap.jpg")}
    truth = _Truth.read(part, root, scene, camera) if options.mode == "full" else None

    def row(frame: int) -> ManifestRow:
        split = splits.get((camera, frame), "")
        if split == "excluded":
            raise DataError(f"Frame {frame} of {scene}/{camera} is no part of the public release.")
        common: dict[str, Any] = {"scene": f"{scene}/{camera}", "frame": frame, "split": split, "licence": _LICENCE}
        linear, preview = colours / f"frame.{frame:04d}.color.hdf5", previews / f"frame.{frame:04d}.tonemap.jpg"
        if linear.is_file():
            entity = f"../{geometry.name}/frame.{frame:04d}.render_entity_id.hdf5"
            image = Ref(inside(linear, root), codec("hypersim", entity=entity))
            height, width = _hdf5_shape(required(linear, "picture"))[:2]
        else:
            image = Ref(inside(preview, root))
            height, width = photo_size(preview, upright=False)
        if truth is not None:
            depth = required(geometry / f"frame.{frame:04d}.depth_meters.hdf5", "depth map")
            intrinsics, world_from_camera = truth.camera(frame, height, width)
            common |= {
                "intrinsics": as_matrix(intrinsics),
                "world_from_camera": as_matrix(world_from_camera),
                "depth": Ref(inside(depth, root), codec("hdf5", key="dataset")),
                "depth_kind": "distance",
                "scale": "metric",
            }
        return ManifestRow(dataset="hypersim", image=image, height=height, width=width, **common)

    yield from each_frame(sorted(numbers), row, lambda frame: f"{inside(colours, root)}/frame.{frame:04d}", on_skip)


@dataclass(frozen=True)
class _Truth:
    """What a camera's files say about all its frames."""

    rays_from_uv: Float[Tensor, "3 3"]
    """Takes (u, v, 1), each in [-1, 1] and v upwards, to a ray in OpenGL's axes."""
    positions_m: np.ndarray
    orientations: np.ndarray

    @classmethod
    def read(cls, part: Path, root: Path, scene: str, camera: str) -> "_Truth":
        """Raises DataError where something is missing or broken."""
        detail = part / "_detail"
        metres = read_part("scale of the scene", detail / "metadata_scene.csv", _read_scale)
        positions = read_part("positions", detail / camera / "camera_keyframe_positions.hdf5", _read_hdf5)
        turns = read_part("orientations", detail / camera / "camera_keyframe_orientations.hdf5", _read_hdf5)
        cameras = _beside(root, _CAMERAS)
        if cameras is None:
            raise DataError(
                f"{root} lacks {_CAMERAS[0]}: the exact camera of a scene is in it. Copy it there from "
                "contrib/mikeroberts3000 of https://github.com/apple/ml-hypersim."
            )
        rays = read_part("cameras", cameras, lambda path: _read_rays(path, scene))
        return cls(rays, positions * metres, turns)

    def camera(self, frame: int, height: int, width: int) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "4 4"]]:
        """Intrinsics and `world_from_camera` of a frame, in metres."""
        if frame >= len(self.positions_m):
            raise DataError(f"Frame {frame} has no pose: the trajectory ends after {len(self.positions_m)}.")
        uv_from_pixel = torch.tensor(
            [[2 / width, 0.0, 1 / width - 1], [0.0, -2 / height, 1 - 1 / height], [0.0, 0.0, 1.0]], dtype=torch.float64
        )
        opengl = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
        intrinsics, pinhole_from_camera = pinhole_from_rays(opengl @ self.rays_from_uv @ uv_from_pixel)
        orientation, position = torch.from_numpy(self.orientations[frame]), torch.from_numpy(self.positions_m[frame])
        pose = opencv_pose(pose_from_rt(orientation, position), "opengl")
        return intrinsics, pose_from_rt(pose[:3, :3] @ pinhole_from_camera.T, pose[:3, 3])


def _camera(folder: Path) -> str:
    return folder.name.removeprefix("scene_").rsplit("_final_", 1)[0]


def _number(path: Path) -> int:
    return int(path.name.split(".")[1])


def _beside(root: Path, names: Sequence[str]) -> Path | None:
    """The first of some files in the root or next to it."""
    return next((base / name for base in (root, root.parent) for name in names if (base / name).is_file()), None)


def _read_scale(path: Path) -> float:
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.reader(file):
            if line and line[0].strip() == "meters_per_asset_unit":
                return float(line[1])
    raise ValueError("it has no line meters_per_asset_unit")


def _read_rays(path: Path, scene: str) -> Float[Tensor, "3 3"]:
    with path.open(newline="", encoding="utf-8") as file:
        for record in csv.DictReader(file):
            if record.get("scene_name") == scene:
                rows = [[float(record[f"M_cam_from_uv_{i}{j}"]) for j in range(3)] for i in range(3)]
                return torch.tensor(rows, dtype=torch.float64)
    raise ValueError(f"it has no line for {scene}")


def _read_splits(path: Path | None, scene: str) -> dict[tuple[str, int], str]:
    """Split of each (camera, frame) of a scene, "excluded" where it is no part of the public release."""
    if path is None:
        return {}

    def read_lines(path: Path) -> dict[tuple[str, int], str]:
        with path.open(newline="", encoding="utf-8") as file:
            return {
                (line["camera_name"], int(line["frame_id"])): line["split_partition_name"]
                if line["included_in_public_release"] == "True"
                else "excluded"
                for line in csv.DictReader(file)
                if line["scene_name"] == scene
            }

    return read_part("splits", path, read_lines)


def _read_hdf5(path: Path) -> np.ndarray:
    with open_hdf5(path) as archive:
        return np.asarray(archive["dataset"][...], dtype=np.float64)


def _hdf5_shape(path: Path) -> tuple[int, ...]:
    with open_hdf5(path) as archive:
        return tuple(archive["dataset"].shape)


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="Hypersim",
    role="training",
    url="https://github.com/apple/ml-hypersim",
    size="1.9 TB; colours, distances and entities alone 0.3 to 0.4 TB (an estimate)",
    licence=_LICENCE,
    sharing="yes, with attribution and under the same licence",
)
