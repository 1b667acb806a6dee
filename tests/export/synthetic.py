"""A small furnished box room, ray-cast in closed form: maps, cameras and photos that agree exactly."""

import math

import torch
from torch import Tensor

from distill3d.types import Prediction, Reconstruction, Views

HALF = torch.tensor([3.0, 1.3, 2.5])  # half extents of the room, y down
BALLS = ((0.8, 0.7, 0.9, 0.6), (-1.2, 0.85, 1.4, 0.45), (-0.2, 1.0, -0.6, 0.3))  # x y z radius


def room_reconstruction(
    num_views: int = 3, height: int = 48, width: int = 64, pitch_deg: float = 12.0
) -> Reconstruction:
    """Cameras on an arc in a room, all pitched downwards by the same angle; world = camera of view 0."""
    focal = 0.62 * width
    intrinsics = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    poses = torch.stack([_pose(index, num_views, math.radians(pitch_deg)) for index in range(num_views)])
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ torch.linalg.inv(intrinsics).T
    depth, images = [], []
    for pose in poses:
        z, color = _cast(pose[:3, 3], rays @ pose[:3, :3].T)
        depth.append(z)
        images.append(color.permute(2, 0, 1))
    z = torch.stack(depth)
    world_from_camera = torch.linalg.inv(poses[0]) @ poses
    camera = rays * z[..., None]
    world = (
        torch.einsum("vij,vhwj->vhwi", world_from_camera[:, :3, :3], camera) + world_from_camera[:, None, None, :3, 3]
    )
    confidence = 1 + 8 * torch.exp(-z) + 2 * torch.stack(images).mean(dim=1)
    return Reconstruction(
        views=Views(images=torch.stack(images)[None]),
        prediction=Prediction(
            pointmap_world=world[None],
            confidence_world=confidence[None],
            depth=z[None],
            world_from_camera=world_from_camera[None],
            intrinsics=intrinsics.expand(1, num_views, 3, 3).clone(),
        ),
        keep=torch.ones(1, num_views, height, width, dtype=torch.bool),
        names=tuple(f"view_{index}.jpg" for index in range(num_views)),
        info={"scene": "synthetic room"},
    )


def _pose(index: int, count: int, pitch: float) -> Tensor:
    yaw = 0.9 * (index - (count - 1) / 2) / max(count - 1, 1)
    turn = torch.tensor([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    tilt = torch.tensor([[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]])
    pose = torch.eye(4)
    pose[:3, :3] = turn @ tilt
    pose[:3, 3] = torch.tensor([-1.8 * math.sin(yaw), -0.3, -2.0 + 0.4 * math.cos(yaw)])
    return pose


def _cast(eye: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest hit along rays with z = 1 in the camera, so that the ray parameter is the z-depth."""
    wall = torch.where(rays >= 0, HALF, -HALF)
    along, axis = ((wall - eye) / torch.where(rays.abs() < 1e-9, 1e-9, rays)).min(dim=-1)
    hit = eye + rays * along[..., None]
    checker = ((hit * 2).floor().sum(dim=-1) % 2)[..., None]
    base = torch.tensor([[0.82, 0.55, 0.42], [0.62, 0.60, 0.56], [0.45, 0.62, 0.72]])[axis]
    color = base * (0.75 + 0.25 * checker)
    shades = torch.tensor([[0.9, 0.25, 0.2], [0.2, 0.55, 0.9], [0.95, 0.8, 0.25]])
    for (cx, cy, cz, radius), shade in zip(BALLS, shades, strict=True):
        center = torch.tensor([cx, cy, cz])
        a = (rays * rays).sum(-1)
        b = ((eye - center) * rays).sum(-1)
        root = b * b - a * (((eye - center) ** 2).sum() - radius**2)
        near = (-b - root.clamp(min=0).sqrt()) / a
        front = (root > 0) & (near > 0) & (near < along)
        normal = (eye + rays * near[..., None] - center) / radius
        lit = shade * (0.55 + 0.45 * (-normal[..., 1:2]).clamp(0, 1))
        along, color = torch.where(front, near, along), torch.where(front[..., None], lit, color)
    return along, color.clamp(0, 1)
