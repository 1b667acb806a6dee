"""Cameras as nine numbers, the way VGGT writes them: translation, quaternion (x, y, z, w), vertical and horizontal FoV.

Translation and rotation are those of `camera_from_world`; the two openings, in radians, lie between the image's borders
and the axis passes through ((W / 2, H / 2)) of integer pixel centres. That is half a pixel beside the middle of the
image, and it is what VGGT's own unprojection does, so it stays.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.geometry.poses import invert_pose, pose_from_rt, quaternion_from_rotation, rotation_from_quaternion

MIN_FOV = 1e-4
"""Smallest opening that is believed, in radians: networks end in a ReLU, and an opening of 0 has no focal length."""


def decode_cameras(
    encoding: Float[Tensor, "*batch 9"], height: int, width: int
) -> tuple[Float[Tensor, "*batch 4 4"], Float[Tensor, "*batch 3 3"]]:
    """Poses `world_from_camera`, and intrinsics in pixels of an image of this size.

    The quaternion may have any length. Openings are at least `MIN_FOV`; those above pi, which no trained network gives,
    have negative focal lengths, as the formula says.
    """
    translation, quaternion, fov = encoding[..., :3], encoding[..., 3:7], encoding[..., 7:]
    camera_from_world = pose_from_rt(rotation_from_quaternion(quaternion.roll(1, dims=-1)), translation)
    focal_y, focal_x = (
        side / 2 / torch.tan(opening.clamp(min=MIN_FOV) / 2)
        for side, opening in zip((height, width), fov.unbind(dim=-1), strict=True)
    )
    zero, one = torch.zeros_like(focal_x), torch.ones_like(focal_x)
    rows = [focal_x, zero, one * (width / 2), zero, focal_y, one * (height / 2), zero, zero, one]
    return invert_pose(camera_from_world), torch.stack(rows, dim=-1).reshape(*zero.shape, 3, 3)


def encode_cameras(
    world_from_camera: Float[Tensor, "*batch 4 4"], intrinsics: Float[Tensor, "*batch 3 3"], height: int, width: int
) -> Float[Tensor, "*batch 9"]:
    """The nine numbers of each camera, with w >= 0. The principal point and skew are not kept."""
    camera_from_world = invert_pose(world_from_camera)
    quaternion = quaternion_from_rotation(camera_from_world[..., :3, :3]).roll(-1, dims=-1)
    fov_y = 2 * torch.atan(height / 2 / intrinsics[..., 1, 1])
    fov_x = 2 * torch.atan(width / 2 / intrinsics[..., 0, 0])
    return torch.cat([camera_from_world[..., :3, 3], quaternion, torch.stack([fov_y, fov_x], dim=-1)], dim=-1)
