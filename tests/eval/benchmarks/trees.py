"""What benchmarks read beside the official layouts: a project of nerfstudio, and one folder with several sets."""

import json
from pathlib import Path

import numpy as np

from distill3d.eval.benchmarks._sequences import ANY_LAYOUT
from distill3d.eval.benchmarks.robustmvd import ALL, SETS
from tests.fixtures.layout_scene import npy, photograph, pinhole, write, write_png
from tests.fixtures.layouts import write_layout

OPENGL = np.diag([1.0, -1, -1, 1])


def write_tree(dataset: str, root: Path) -> Path:
    """The tree that a benchmark of that data set reads; gives its root."""
    if dataset == ANY_LAYOUT:
        return write_nerfstudio(root)
    if dataset == ALL:
        for name, chosen in SETS.items():
            write_tree(chosen.dataset, root / name)
        return root
    return write_layout(dataset, root).root


def write_nerfstudio(root: Path) -> Path:
    """Five views with depth and cameras; a scene of Tanks & Temples that somebody brought into this layout."""
    lens, size = pinhole(55.0, 56.0, 31.2, 23.7), (48, 64)
    photos = photograph(lens, size, 5)
    scene = root / "Barn"
    frames = []
    for number, pose in enumerate(photos.world_from_camera):
        write_png(scene / f"images/{number:06d}.png", photos.images[number])
        write(scene / f"depth/{number}.npy", npy(photos.depth[number].astype(np.float32)))
        names = {"file_path": f"images/{number:06d}.png", "depth_file_path": f"depth/{number}.npy"}
        frames.append({**names, "transform_matrix": (pose @ OPENGL).tolist()})
    camera = {"fl_x": 55.0, "fl_y": 56.0, "cx": 31.7, "cy": 24.2, "w": size[1], "h": size[0]}
    camera["applied_transform"] = np.eye(4)[:3].tolist()
    write(scene / "transforms.json", json.dumps({**camera, "frames": frames}))
    return root
