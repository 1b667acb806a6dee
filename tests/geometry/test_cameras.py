import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.errors import GeometryError
from distill3d.geometry.cameras import (
    camera_rays,
    centred_intrinsics,
    crop_intrinsics,
    fov_from_intrinsics,
    intrinsics_from_corner_convention,
    intrinsics_from_fov,
    intrinsics_to_corner_convention,
    pixel_grid,
    project_points,
    resize_intrinsics,
    transpose_intrinsics,
    turn_camera,
    turns_to_upright,
    unproject_depth,
)
from tests.geometry.cases import generator, random_intrinsics, seeds, sizes

quick = settings(deadline=None, max_examples=25)


def random_depth(rng, *shape):
    return torch.rand(*shape, generator=rng, dtype=torch.float64) * 5 + 0.1


def test_the_top_left_pixel_is_the_origin_and_x_comes_first():
    grid = pixel_grid(2, 3)
    assert grid[0, 0].tolist() == [0, 0]
    assert grid[1, 2].tolist() == [2, 1]


@quick
@given(seeds, sizes)
def test_what_was_unprojected_projects_to_its_own_pixel_and_depth(seed, size):
    rng = generator(seed)
    intrinsics, depth = random_intrinsics(rng, *size, 2, 3), random_depth(rng, 2, 3, *size)
    pixels, depth_back = project_points(unproject_depth(depth, intrinsics), intrinsics)
    torch.testing.assert_close(depth_back, depth)
    torch.testing.assert_close(pixels, pixel_grid(*size, dtype=torch.float64).expand(2, 3, *size, 2))


@quick
@given(seeds, sizes, sizes)
def test_resized_intrinsics_see_a_point_where_the_resized_image_shows_it(seed, old, new):
    rng = generator(seed)
    intrinsics = random_intrinsics(rng, *old)
    points = unproject_depth(random_depth(rng, *old), intrinsics)
    before, _ = project_points(points, intrinsics)
    after, _ = project_points(points, resize_intrinsics(intrinsics, old, new))
    # Seen from the image's corner, every coordinate scales by the ratio of the sizes.
    ratio = torch.tensor([new[1] / old[1], new[0] / old[0]], dtype=torch.float64)
    torch.testing.assert_close(after + 0.5, (before + 0.5) * ratio)


@quick
@given(seeds, sizes, sizes)
def test_resizing_forth_and_back_changes_nothing(seed, old, new):
    intrinsics = random_intrinsics(generator(seed), *old)
    torch.testing.assert_close(resize_intrinsics(resize_intrinsics(intrinsics, old, new), new, old), intrinsics)


@quick
@given(seeds, sizes, st.integers(-3, 3), st.integers(-3, 3))
def test_cropped_intrinsics_see_the_same_point_shifted(seed, size, top, left):
    rng = generator(seed)
    intrinsics = random_intrinsics(rng, *size)
    points = unproject_depth(random_depth(rng, *size), intrinsics)
    before, _ = project_points(points, intrinsics)
    after, _ = project_points(points, crop_intrinsics(intrinsics, top, left))
    torch.testing.assert_close(after, before - torch.tensor([left, top], dtype=torch.float64))


@quick
@given(seeds, sizes)
def test_transposed_intrinsics_see_the_transposed_point_at_the_transposed_pixel(seed, size):
    rng = generator(seed)
    intrinsics = random_intrinsics(rng, *size, skew=False)
    points = unproject_depth(random_depth(rng, *size), intrinsics)
    before, _ = project_points(points, intrinsics)
    after, _ = project_points(points[..., [1, 0, 2]], transpose_intrinsics(intrinsics))
    torch.testing.assert_close(after, before.flip(-1))


def test_a_camera_that_was_turned_stands_upright_again():
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # z of the world points up in the picture
    up = torch.tensor([0.0, 0.0, 1.0])
    intrinsics = centred_intrinsics(torch.tensor(50.0, dtype=torch.float64), 48, 64)
    assert turns_to_upright(pose[None], up) == 0
    for turns in (1, 2, 3):
        size = (48, 64)
        turned, turned_pose = turn_camera(intrinsics, pose, size, turns)
        needed = turns_to_upright(turned_pose[None], up)
        assert needed == 4 - turns
        back, back_pose = turn_camera(turned, turned_pose, size[::-1] if turns % 2 else size, needed)
        torch.testing.assert_close(back, intrinsics)
        torch.testing.assert_close(back_pose, pose)


def test_turning_a_camera_with_skew_onto_its_side_is_refused():
    skewed = torch.tensor([[50.0, 1, 30], [0, 50, 20], [0, 0, 1]])
    with pytest.raises(GeometryError, match="skew"):
        turn_camera(skewed, torch.eye(4), (40, 60), 3)
    turn_camera(skewed, torch.eye(4), (40, 60), 2)


def test_transposing_a_camera_with_skew_is_refused():
    intrinsics = torch.eye(3)
    intrinsics[0, 1] = 0.1
    with pytest.raises(GeometryError, match="skew"):
        transpose_intrinsics(intrinsics)


@quick
@given(seeds, sizes, st.floats(0.1, 3.0))
def test_the_opening_angle_survives_the_round_trip(seed, size, fov):
    intrinsics = intrinsics_from_fov(torch.tensor(fov, dtype=torch.float64), *size)
    assert fov_from_intrinsics(intrinsics, *size)[0].item() == pytest.approx(fov, rel=1e-9)


def test_ninety_degrees_span_from_border_to_border():
    intrinsics = intrinsics_from_fov(torch.tensor(math.pi / 2), 4, 6)
    assert intrinsics[0, 0].item() == pytest.approx(3.0)
    left = camera_rays(intrinsics, 4, 6)[0, 0, 0].item()
    assert left == pytest.approx(-2.5 / 3)  # the centre of the first pixel is half a pixel inside the border


def test_the_principal_point_of_centred_intrinsics_is_between_the_middle_pixels():
    assert centred_intrinsics(torch.tensor([5.0]), 4, 6)[0, :2, 2].tolist() == [2.5, 1.5]


@quick
@given(seeds, sizes)
def test_corner_convention_is_half_a_pixel_away_and_back(seed, size):
    ours = random_intrinsics(generator(seed), *size)
    theirs = intrinsics_to_corner_convention(ours)
    torch.testing.assert_close(theirs[:2, 2], ours[:2, 2] + 0.5)
    torch.testing.assert_close(intrinsics_from_corner_convention(theirs), ours)


def test_gradients_reach_depth_and_focal_length():
    depth = torch.rand(3, 4, dtype=torch.float64).add(1).requires_grad_()
    intrinsics = random_intrinsics(generator(0), 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(unproject_depth, (depth, intrinsics))
