"""A COLMAP project with exact geometry: cameras around a cloud, and what each of them sees of it."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from distill3d.geometry.poses import look_at
from tests.data.colmap_files import write_binary
from tests.data.pictures import save_picture

HEIGHT, WIDTH, FOCAL = 48, 64, 50.0
SHORT_TRACK, BAD_POINT = 0, 1
"""Points that are not good enough: the one was seen twice only, the other reprojects badly."""


def cloud(count: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3)) * 0.8 + [0, 0, 5]


def poses(views: int = 3, seed: int = 0) -> np.ndarray:
    """world_from_camera, far from the origin of nothing in particular."""
    eye = torch.tensor(np.random.default_rng(seed + 1).uniform(-1, 1, (views, 3)))
    target = torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64).expand(views, 3)
    up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64).expand(views, 3)
    return look_at(eye, target, up).numpy()


def project_cloud(points: np.ndarray, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (integer centres) and points in the camera."""
    camera_from_world = np.linalg.inv(world_from_camera)
    local = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    return FOCAL * local[:, :2] / local[:, 2:] + [(WIDTH - 1) / 2, (HEIGHT - 1) / 2], local


def write_project(root, views=3, seed=0, names=None):
    """Photos in `images`, the model in `sparse/0`; cameras and points are returned."""
    points, cameras = cloud(seed=seed), poses(views, seed)
    names = names or [f"p{view}.png" for view in range(views)]
    images = []
    for view, (pose, name) in enumerate(zip(cameras, names, strict=True)):
        pixels, _ = project_cloud(points, pose)
        camera_from_world = np.linalg.inv(pose)
        x, y, z, w = Rotation.from_matrix(camera_from_world[:3, :3]).as_quat()
        numbers = [-1 if point == SHORT_TRACK and view > 1 else point + 100 for point in range(len(points))]
        observed = [(*(pixel + 0.5), number) for pixel, number in zip(pixels, numbers, strict=True)]
        images.append((view + 1, (w, x, y, z, *camera_from_world[:3, 3]), 1, name, observed))
        save_picture(root / "images" / name, HEIGHT, WIDTH, seed=view)
    tracks = [
        [(view + 1, point) for view in range(min(views, 2) if point == SHORT_TRACK else views)]
        for point in range(len(points))
    ]
    held = [
        (point + 100, tuple(points[point]), (9, 9, 9), 7.0 if point == BAD_POINT else 0.5, tracks[point])
        for point in range(len(points))
    ]
    write_binary(
        root / "sparse/0", [(1, "SIMPLE_PINHOLE", WIDTH, HEIGHT, (FOCAL, WIDTH / 2, HEIGHT / 2))], images, held
    )
    return points, cameras
