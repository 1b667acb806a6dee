"""Rigid poses and rotations. Poses read like fractions: `a_from_b` takes points of frame b to frame a."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def pose_from_rt(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Build the 4x4 matrix that maps `x` to `rotation @ x + translation`."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=top.dtype, device=top.device).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)


def invert_pose(pose: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Turn `a_from_b` into `b_from_a`; the rotation must be one (its transpose is its inverse)."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    return pose_from_rt(rotation, -(rotation @ pose[..., :3, 3:])[..., 0])


def transform_points(
    pose: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch height width 3"]
) -> Float[Tensor, "*batch height width 3"]:
    """Take a pointmap of frame b to frame a with `pose` = `a_from_b`."""
    rotation, translation = pose[..., None, :3, :3], pose[..., None, None, :3, 3]
    return points @ rotation.transpose(-1, -2) + translation


def relative_pose(
    world_from_a: Float[Tensor, "*#batch 4 4"], world_from_b: Float[Tensor, "*#batch 4 4"]
) -> Float[Tensor, "*batch 4 4"]:
    """Give `a_from_b` of two cameras in one world."""
    return invert_pose(world_from_a) @ world_from_b


def rebase_poses(
    world_from_camera: Float[Tensor, "batch views 4 4"], reference: int
) -> Float[Tensor, "batch views 4 4"]:
    """Move the world into the camera frame of view `reference`, whose own pose becomes exactly the identity."""
    reference_from_world = invert_pose(world_from_camera[:, reference : reference + 1])
    rebased = reference_from_world @ world_from_camera
    rebased[:, reference] = torch.eye(4, dtype=rebased.dtype, device=rebased.device)
    return rebased


def look_at(
    eye: Float[Tensor, "*batch 3"], target: Float[Tensor, "*batch 3"], up: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Give the `world_from_camera` of a camera at `eye` that looks at `target`; `up` points to the image's top.

    `up` must not be parallel to the viewing direction.
    """
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    return pose_from_rt(torch.stack([right, down, forward], dim=-1), eye)


def rotation_angle(a: Float[Tensor, "*#batch 3 3"], b: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Give the angle between two rotations in radians, within [0, pi].

    Sine and cosine are both used, so tiny angles and angles near pi keep their digits (the arc cosine of the trace
    would lose half of them); the gradient is finite everywhere.
    """
    relative = a.double().transpose(-1, -2) @ b.double()
    skew = relative - relative.transpose(-1, -2)
    sine = torch.linalg.vector_norm(skew.flatten(-2), dim=-1) / (2 * 2**0.5)
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(dim=-1) - 1) / 2
    return torch.atan2(sine, cosine).to(a.dtype)


def translation_angle(a: Float[Tensor, "*#batch 3"], b: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*batch"]:
    """Give the angle between two directions in radians, within [0, pi]; 0 where one of them has no length."""
    a, b, dtype = a.double(), b.double(), a.dtype
    sine = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1)
    return torch.atan2(sine, (a * b).sum(dim=-1)).to(dtype)


def rotation_from_quaternion(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Turn a quaternion (w, x, y, z) of any length but 0 into its rotation."""
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(dim=-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*w.shape, 3, 3)


def quaternion_from_rotation(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Turn a rotation into its unit quaternion (w, x, y, z) with w >= 0."""
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 2, 0] + m[..., 0, 2], m[..., 2, 1] + m[..., 1, 2]
    # Row k is 4 * q_k * q; the row with the largest q_k loses no digits.
    rows = [
        [1 + xx + yy + zz, wx, wy, wz],
        [wx, 1 + xx - yy - zz, xy, xz],
        [wy, xy, 1 - xx + yy - zz, yz],
        [wz, xz, yz, 1 - xx - yy + zz],
    ]
    outer = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    chosen = outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
    quaternion = torch.nn.functional.normalize(chosen, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


class _NearestRotation(torch.autograd.Function):
    """`U diag(1, 1, det) V^T`, with the derivative of the polar factor instead of the derivative of the SVD.

    The derivative of an SVD divides by differences of singular values, which are all alike for a matrix that is nearly
    a rotation; the rotation itself changes smoothly, by `(A_ij - A_ji) / (s_i + s_j)` in the singular basis.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(matrix)
        sign = torch.where(torch.linalg.det(u @ vh) < 0, -1.0, 1.0).to(s.dtype)
        flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
        vh = flip[..., None] * vh
        ctx.save_for_backward(u, s * flip, vh)
        rotation: Tensor = u @ vh
        return rotation

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        u, s, vh = ctx.saved_tensors
        inner = u.transpose(-1, -2) @ grad_outputs[0] @ vh.transpose(-1, -2)
        sums = s[..., :, None] + s[..., None, :]
        # Where two singular values cancel, the rotation about that axis is not determined: no gradient rather than inf.
        floor = 1e-12 * s[..., :1, None].abs()
        usable = sums > floor
        swing = torch.where(usable, (inner - inner.transpose(-1, -2)) / torch.where(usable, sums, 1.0), 0.0)
        gradient: Tensor = u @ swing @ vh
        return gradient


def project_to_rotation(matrix: Float[Tensor, "*batch 3 3"], *, double: bool = True) -> Float[Tensor, "*batch 3 3"]:
    """Give the rotation (determinant +1) nearest to a matrix: the orthogonal Procrustes solution.

    Differentiable once. The gradient is exact wherever the answer is unique and 0, never infinite, where it is not.

    Args:
        double: compute in float64, which not every accelerator can.
    """
    rotation: Tensor = _NearestRotation.apply(matrix.double() if double else matrix)  # type: ignore[no-untyped-call]
    return rotation.to(matrix.dtype)
