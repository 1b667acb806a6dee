import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.nn.activations import (
    exp_depth_points,
    exp_points,
    log_points,
    one_plus_exp,
    ray_depth_points,
    ray_grid,
    signed_expm1,
)

coordinate = st.floats(-50, 50, width=32)


@settings(deadline=None)
@given(st.tuples(coordinate, coordinate, coordinate))
def test_log_points_undoes_exp_points(point):
    points = torch.tensor([point])
    torch.testing.assert_close(exp_points(log_points(points)), points, rtol=1e-4, atol=1e-5)


def test_exp_points_keep_the_direction_and_stretch_the_length():
    found = exp_points(torch.tensor([[0.0, 0.0, 2.0], [3.0, 0.0, 4.0]]))
    torch.testing.assert_close(found[0], torch.tensor([0.0, 0.0, math.e**2 - 1]))
    torch.testing.assert_close(found[1] / found[1].norm(), torch.tensor([0.6, 0.0, 0.8]))


def test_a_point_at_the_origin_has_a_finite_gradient():
    raw = torch.zeros(1, 3, requires_grad=True)
    exp_points(raw).sum().backward()
    assert torch.isfinite(raw.grad).all()


@pytest.mark.parametrize(("height", "width"), [(6, 10), (10, 6), (4, 4)])
def test_rays_are_those_of_a_centred_pinhole_with_square_pixels(height, width):
    tangent = torch.tensor(0.6)
    points = ray_depth_points(torch.zeros(height, width, 3), tangent)
    focal = max(height, width) / 2 / 0.6
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    torch.testing.assert_close(points[..., 2], torch.ones(height, width))
    torch.testing.assert_close(points[..., 0] * focal + (width - 1) / 2, columns.float())
    torch.testing.assert_close(points[..., 1] * focal + (height - 1) / 2, rows.float())
    assert ray_grid(height, width).abs().max() < 1


def test_depth_is_the_exponential_and_offsets_move_the_ray():
    raw = torch.zeros(2, 2, 3)
    raw[..., 2] = math.log(5)
    raw[0, 0, 0] = 0.1
    moved, straight = (
        ray_depth_points(raw, torch.tensor(0.5)),
        ray_depth_points(raw * torch.tensor([0, 0, 1.0]), torch.tensor(0.5)),
    )
    torch.testing.assert_close(moved[..., 2], torch.full((2, 2), 5.0))
    torch.testing.assert_close((moved - straight)[0, 0], torch.tensor([0.5, 0.0, 0.0]))


def test_a_wild_depth_does_not_overflow():
    assert torch.isfinite(ray_depth_points(torch.full((2, 2, 3), 500.0), torch.tensor(0.5))).all()


def test_confidence_is_above_one():
    assert torch.equal(one_plus_exp(torch.zeros(2)), torch.full((2,), 2.0))
    assert (one_plus_exp(torch.linspace(-10, 10, 9)) > 1).all()


def test_the_signed_exponential_is_odd_and_grows_from_nothing():
    raw = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
    found = signed_expm1(raw)
    torch.testing.assert_close(found, -found.flip(0))
    assert found[2] == 0
    assert found[4].item() == pytest.approx(math.e**2 - 1, rel=1e-6)


def test_exp_depth_points_lie_on_the_raw_ray_at_an_exponential_depth():
    found = exp_depth_points(torch.tensor([[0.5, -2.0, 0.0], [1.0, 1.0, math.log(3)]]))
    torch.testing.assert_close(found, torch.tensor([[0.5, -2.0, 1.0], [3.0, 3.0, 3.0]]))
    far = exp_depth_points(torch.tensor([[1.0, 0.0, 200.0]]), largest=15.0)
    torch.testing.assert_close(far[0, 2], torch.tensor(15.0).exp())
