import math

import pytest
import torch

from distill3d.losses.surface import gradient_term, normal_term
from tests.losses.helpers import scene, turn


def plane(slope, height=12, width=16):
    """A plane z = 2 + slope * x seen by a camera."""
    rows, columns = torch.meshgrid(torch.linspace(-0.3, 0.3, height), torch.linspace(-0.4, 0.4, width), indexing="ij")
    depth = 2 / (1 - slope * columns)
    return torch.stack([columns * depth, rows * depth, depth], dim=-1)[None, None]


def mask(points):
    return torch.ones(points.shape[:-1], dtype=torch.bool)


def test_scale_changes_neither():
    points = scene().pointmap_camera
    assert gradient_term(3 * points, points, mask(points)).item() == pytest.approx(0, abs=1e-5)
    assert normal_term(3 * points, points, mask(points)).item() == pytest.approx(0, abs=1e-5)


def test_normals_of_two_planes_differ_by_the_angle_between_them():
    one, two = plane(0.0), plane(math.tan(math.radians(20)))
    assert normal_term(one, two, mask(one)).item() == pytest.approx(1 - math.cos(math.radians(20)), rel=1e-3)
    assert normal_term(one @ turn(30).T, one, mask(one)).item() == pytest.approx(
        1 - math.cos(math.radians(30)), rel=1e-3
    )


def test_a_step_in_depth_costs_its_logarithm_where_it_is():
    target = plane(0.0)
    stepped = target.clone()
    stepped[..., 8:, :] *= 1.5
    found = gradient_term(stepped, target, mask(target)).item()
    # Along x a share of `step` of the 16 - step differences cross the edge; along y none does.
    share = sum(step / (16 - step) for step in (1, 2, 4, 8)) / 8
    assert found == pytest.approx(math.log(1.5) * share, rel=1e-4)


def test_normals_across_an_edge_of_the_target_do_not_count():
    target = plane(0.0)
    target[..., 8:, :] *= 2
    moved = target.clone()
    moved[..., 8:, :] *= 1.7
    assert normal_term(moved, target, mask(target)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("term", [gradient_term, normal_term])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (5, 1)])
def test_maps_too_small_for_neighbours_give_zero_with_a_gradient(term, size):
    points = torch.rand(1, 1, *size, 3, requires_grad=True)
    loss = term(points, torch.ones(1, 1, *size, 3), torch.ones(1, 1, *size, dtype=torch.bool))
    loss.backward()
    assert torch.isfinite(loss)
    assert points.grad is None or torch.isfinite(points.grad).all()


@pytest.mark.parametrize("term", [gradient_term, normal_term])
def test_a_collapsed_map_has_finite_gradients(term):
    points = torch.zeros(1, 1, 4, 4, 3, requires_grad=True)
    term(points, scene(1, 1, 4, 4).pointmap_camera, torch.ones(1, 1, 4, 4, dtype=torch.bool)).backward()
    assert torch.isfinite(points.grad).all()
