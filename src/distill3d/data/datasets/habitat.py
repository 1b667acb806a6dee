"""Habitat renders, in the layouts of CroCo (two views) and of DUSt3R and Fast3R (five views, of which 1 sees them all).

<place>/<key>_<view>.jpeg  _depth.exr  _camera_params.json          a key is a scene
Habitat_*_scenes_{train,val}.txt                                   lines of <place>/<key>, in the root; optional

Cameras are OpenCV's with integer pixel centres, the world is Habitat's (y up), depth is planar half floats in metres.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill3d.data.datasets import DatasetSpec, ScanOptions, counted
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, read_part, required
from distill3d.data.refs import Ref
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.files import read_json
from distill3d.geometry.poses import pose_from_rt

_VIEW = re.compile(r"(\d+)_(\d+)")
_LICENCE = "terms of the meshes (HM3D, Gibson, ScanNet: academic)"


def find(root: Path) -> Sequence[Path]:
    """The folders that hold keys."""
    return sorted({photo.parent for photo in below(root, "[0-9]*_[0-9].jpeg", depth=4)}, key=natural_key)


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The views of all keys in one folder, numbered as their files."""
    splits = _splits(root)

    def row(photo: Path) -> ManifestRow:
        key, view = photo.stem.split("_")
        scene = inside(photo.with_name(key), root)
        common: dict[str, Any] = {
            "dataset": "habitat",
            "scene": scene,
            "frame": int(view),
            "ordered": False,
            "split": splits.get(scene, ""),
            "licence": _LICENCE,
        }
        if options.mode == "images_only":
            return photo_row(photo, root, **common)
        camera = read_json(required(photo.with_name(f"{photo.stem}_camera_params.json"), "camera"))
        depth = required(photo.with_name(f"{photo.stem}_depth.exr"), "depth map")
        rotation, translation = (
            torch.tensor(camera[name], dtype=torch.float64) for name in ("R_cam2world", "t_cam2world")
        )
        return photo_row(
            photo,
            root,
            intrinsics=as_matrix(np.array(camera["camera_intrinsics"], dtype=np.float64)),
            world_from_camera=as_matrix(pose_from_rt(rotation, translation)),
            depth=Ref(inside(depth, root), "exr"),
            scale="metric",
            **common,
        )

    photos = [photo for photo in part.glob("[0-9]*_[0-9].jpeg") if _VIEW.fullmatch(photo.stem)]
    return each_frame(sorted(photos, key=natural_key), row, lambda photo: inside(photo, root), on_skip)


def _splits(root: Path) -> dict[str, str]:
    """Split of each scene that a list in the root names."""
    listed = [(path, split) for split in ("train", "val") for path in root.glob(f"Habitat_*_scenes_{split}.txt")]
    return _read_splits(tuple((path, split, path.stat().st_mtime_ns) for path, split in listed))


@functools.lru_cache(maxsize=1)
def _read_splits(lists: tuple[tuple[Path, str, int], ...]) -> dict[str, str]:
    """From files, splits and times of change: kept, because a list has up to a million lines and each folder asks."""
    found: dict[str, str] = {}
    for path, split, _ in lists:
        lines = read_part("list of scenes", path, lambda file: file.read_text(encoding="utf-8")).splitlines()
        found |= {line.strip(): split for line in lines if line.strip()}
    return found


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="Habitat renders",
    role="training",
    count=lambda parts: counted(len(parts), "folder"),
    url="https://github.com/naver/dust3r/tree/main/datasets_preprocess/habitat (poses; the renders are made by users)",
    size="about 2 TB for a million keys of five views (an estimate)",
    licence=_LICENCE,
    sharing="no redistribution of renders or caches (ReplicaCAD: CC BY 4.0, not verified)",
)
