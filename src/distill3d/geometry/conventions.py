"""Cameras as others write them down, taken to ours: OpenCV axes, `world_from_camera`, integer pixel centres."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.geometry.cameras import intrinsics_from_corner_convention
from distill3d.geometry.poses import invert_pose, pose_from_rt

Axes = Literal["opengl", "ned", "pytorch3d"]

# Columns: where our x (right), y (down) and z (forward) point in the axes of the other camera.
_AXES_FROM_OPENCV = {
    "opengl": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),  # x right, y up, z backward
    "ned": ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),  # x forward, y right, z down
    "pytorch3d": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),  # x left, y up, z forward
}


def opencv_pose(world_from_camera: Float[Tensor, "*batch 4 4"], axes: Axes) -> Float[Tensor, "*batch 4 4"]:
    """Turn the axes of a camera into OpenCV's; the world and the camera's place stay as they are.

    Args:
        world_from_camera: of a camera with the axes of OpenGL (Blender, nerfstudio, Hypersim: x right, y up, z
            backward), of a vehicle (AirSim, TartanAir: north, east, down, that is x forward, y right, z down) or of
            PyTorch3D (x left, y up, z forward).
        axes: which of them.
    """
    turn = torch.tensor(_AXES_FROM_OPENCV[axes], dtype=world_from_camera.dtype, device=world_from_camera.device)
    return pose_from_rt(world_from_camera[..., :3, :3] @ turn, world_from_camera[..., :3, 3])


def pose_from_pytorch3d(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """`world_from_camera` of a PyTorch3D camera, whose row vectors are x_camera = x_world R + T."""
    return opencv_pose(invert_pose(pose_from_rt(rotation.transpose(-1, -2), translation)), "pytorch3d")


def intrinsics_from_ndc(
    focal: Float[Tensor, "*batch 2"],
    principal: Float[Tensor, "*batch 2"],
    size: tuple[int, int],
    *,
    isotropic: bool,
) -> Float[Tensor, "*batch 3 3"]:
    """Intrinsics of a PyTorch3D camera, whose normalised coordinates point left and up from the image's middle.

    Args:
        focal: (x, y) in normalised units.
        principal: (x, y) in normalised units.
        size: (height, width).
        isotropic: the shorter side spans [-1, 1] (`ndc_isotropic`); else each side does (`ndc_norm_image_bounds`).
    """
    sides = torch.tensor([size[1], size[0]], dtype=focal.dtype, device=focal.device)
    half = (sides.min() if isotropic else sides) / 2
    corner = torch.diag_embed(torch.cat([focal * half, torch.ones_like(focal[..., :1])], dim=-1))
    corner[..., :2, 2] = sides / 2 - principal * half
    return intrinsics_from_corner_convention(corner)


def intrinsics_from_normalised(
    normalised: Float[Tensor, "*batch 3 3"], size: tuple[int, int]
) -> Float[Tensor, "*batch 3 3"]:
    """Intrinsics in units of the image's width and height, from its corner (MoGe, RealEstate10K), to pixels.

    Args:
        normalised: 3x3; the middle of the image is (0.5, 0.5).
        size: (height, width).
    """
    scale = torch.tensor([size[1], size[0], 1.0], dtype=normalised.dtype, device=normalised.device)
    return intrinsics_from_corner_convention(scale[:, None] * normalised)


def pinhole_from_rays(
    camera_from_pixel: Float[Tensor, "*batch 3 3"],
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3 3"]]:
    """Split any linear map from pixels to rays into a pinhole and a turn; a tilted image plane becomes skew.

    Every camera that maps (column, row, 1) linearly to a ray is exactly a pinhole in another frame: with
    K = `intrinsics` and R = `pinhole_from_camera`, the ray of a pixel is R^T K^-1 (column, row, 1), up to its length.

    Returns:
        `intrinsics` (upper triangular, bottom right 1) and `pinhole_from_camera` (a rotation).
    """
    inverse = torch.linalg.inv(camera_from_pixel)
    # A camera looks along +z: of the two signs of the map, the one whose rotation is proper.
    inverse = torch.where(torch.linalg.det(inverse)[..., None, None] < 0, -inverse, inverse)
    # RQ by QR of the matrix upside down.
    q, r = torch.linalg.qr(inverse.flip(-2).transpose(-1, -2))
    upper = r.transpose(-1, -2).flip(-1, -2)
    rotation = q.transpose(-1, -2).flip(-2)
    signs = upper.diagonal(dim1=-2, dim2=-1).sign()
    intrinsics = upper * signs[..., None, :]
    return intrinsics / intrinsics[..., 2:, 2:], signs[..., :, None] * rotation
