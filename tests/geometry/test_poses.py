import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.geometry.poses import (
    invert_pose,
    look_at,
    pose_from_rt,
    project_to_rotation,
    quaternion_from_rotation,
    rebase_poses,
    relative_pose,
    rotation_angle,
    rotation_from_quaternion,
    transform_points,
    translation_angle,
)
from tests.geometry.cases import generator, random_pose, random_rotation, seeds

quick = settings(deadline=None, max_examples=25)
float64 = torch.float64


def turn(axis, angle):
    """Rotation about x, y or z (0, 1, 2)."""
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    rotation = torch.eye(3, dtype=float64)
    rotation[i, i] = rotation[j, j] = math.cos(angle)
    rotation[j, i] = math.sin(angle)
    rotation[i, j] = -math.sin(angle)
    return rotation


@quick
@given(seeds)
def test_pose_times_inverse_is_the_identity(seed):
    pose = random_pose(generator(seed), 2, 3)
    torch.testing.assert_close(pose @ invert_pose(pose), torch.eye(4, dtype=float64).expand(2, 3, 4, 4))


@quick
@given(seeds)
def test_names_cancel_like_fractions(seed):
    rng = generator(seed)
    world_from_a, world_from_b = random_pose(rng), random_pose(rng)
    points_b = torch.randn(4, 5, 3, generator=rng, dtype=float64)
    through_a = transform_points(world_from_a, transform_points(relative_pose(world_from_a, world_from_b), points_b))
    torch.testing.assert_close(through_a, transform_points(world_from_b, points_b))


def test_rebasing_makes_the_reference_exactly_the_identity_and_keeps_relative_poses():
    poses = random_pose(generator(1), 2, 4, dtype=torch.float32)
    rebased = rebase_poses(poses, 2)
    assert torch.equal(rebased[:, 2], torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(relative_pose(rebased[:, 0], rebased[:, 3]), relative_pose(poses[:, 0], poses[:, 3]))


def test_a_camera_looks_along_z_with_up_at_the_top_of_the_image():
    eye, target = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 2.0, 3.0])
    pose = look_at(eye, target, torch.tensor([0.0, 0.0, 1.0]))
    camera_from_world = invert_pose(pose)
    seen = transform_points(camera_from_world, torch.stack([target, target + torch.tensor([0.0, 0, 1])])[None])[0]
    torch.testing.assert_close(seen[0], torch.tensor([0.0, 0.0, 3.0]))
    torch.testing.assert_close(seen[1], torch.tensor([0.0, -1.0, 3.0]))  # y points down in the image
    assert torch.linalg.det(pose[:3, :3]).item() == pytest.approx(1)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-6, 0.3, math.pi / 2, 3.0, math.pi - 1e-6, math.pi - 1e-9, math.pi])
def test_the_angle_keeps_its_digits_near_zero_and_near_pi(angle):
    first = random_rotation(generator(3))
    for axis in range(3):
        found = rotation_angle(first, first @ turn(axis, angle)).item()
        assert found == pytest.approx(angle, abs=1e-14, rel=1e-7)


def test_the_gradient_of_the_angle_is_finite_even_at_zero():
    rotation = torch.eye(3, dtype=float64, requires_grad=True)
    rotation_angle(torch.eye(3, dtype=float64), rotation).backward()
    assert rotation.grad is not None
    assert torch.isfinite(rotation.grad).all()


def test_the_angle_between_directions_ignores_their_lengths():
    a, b = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([[1.0, 1.0, 0.0], [-3.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    found = translation_angle(a.expand(3, 3), b)
    torch.testing.assert_close(found, torch.tensor([math.pi / 4, math.pi, 0.0]))


@quick
@given(seeds)
def test_quaternions_round_trip(seed):
    rotation = random_rotation(generator(seed), 4)
    quaternion = quaternion_from_rotation(rotation)
    torch.testing.assert_close(rotation_from_quaternion(quaternion), rotation)
    assert (quaternion[:, 0] >= 0).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_turns_have_quaternions_too(axis):
    rotation = turn(axis, math.pi)
    expected = torch.zeros(4, dtype=float64)
    expected[axis + 1] = 1
    torch.testing.assert_close(quaternion_from_rotation(rotation).abs(), expected)


@quick
@given(seeds, st.floats(0, 0.2))
def test_the_projection_is_a_rotation_and_no_small_turn_is_nearer(seed, noise):
    rng = generator(seed)
    matrix = random_rotation(rng) + noise * torch.randn(3, 3, generator=rng, dtype=float64)
    nearest = project_to_rotation(matrix)
    torch.testing.assert_close(nearest @ nearest.T, torch.eye(3, dtype=float64))
    assert torch.linalg.det(nearest).item() == pytest.approx(1)
    best = (nearest - matrix).norm()
    for axis in range(3):
        for angle in (-0.01, 0.01):
            assert (nearest @ turn(axis, angle) - matrix).norm() >= best - 1e-12


def test_a_reflection_projects_to_a_proper_rotation():
    mirror = torch.diag(torch.tensor([1.0, 2.0, -3.0]))
    nearest = project_to_rotation(mirror)
    assert torch.linalg.det(nearest).item() == pytest.approx(1)
    torch.testing.assert_close(nearest, torch.diag(torch.tensor([-1.0, 1.0, -1.0])))


@pytest.mark.parametrize(
    "matrix", [torch.eye(3), torch.randn(3, 3, generator=generator(5)), torch.diag(torch.tensor([3.0, 2, -1]))]
)
def test_the_gradient_of_the_projection_is_right_where_an_svd_would_fail(matrix):
    assert torch.autograd.gradcheck(project_to_rotation, (matrix.double().requires_grad_(),))


def test_the_gradient_of_the_projection_is_finite_for_a_matrix_of_rank_one():
    matrix = torch.outer(torch.arange(1.0, 4), torch.arange(2.0, 5)).requires_grad_()
    (project_to_rotation(matrix) * torch.arange(9.0).reshape(3, 3)).sum().backward()
    assert matrix.grad is not None
    assert torch.isfinite(matrix.grad).all()


def test_a_pose_of_rotation_and_translation_maps_points_by_both():
    pose = pose_from_rt(turn(2, math.pi / 2), torch.tensor([1.0, 0, 0], dtype=float64))
    moved = transform_points(pose, torch.tensor([[[1.0, 0, 0]]], dtype=float64))
    torch.testing.assert_close(moved, torch.tensor([[[1.0, 1, 0]]], dtype=float64))
