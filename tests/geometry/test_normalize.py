import pytest
import torch

from distill3d.geometry.normalize import mean_distance, normalize_pointmaps


def maps():
    points = torch.zeros(2, 2, 1, 2, 3)
    points[0, 0, 0, :, 0] = torch.tensor([3.0, 5.0])
    points[0, 1, 0, 0, 1], points[0, 1, 0, 1, 2] = 1.0, torch.nan
    valid = torch.ones(2, 2, 1, 2, dtype=torch.bool)
    valid[0, 1, 0, 1] = False
    valid[1] = False
    return points, valid


def test_the_mean_distance_counts_valid_points_only_per_sample_and_per_view():
    points, valid = maps()
    torch.testing.assert_close(mean_distance(points, valid), torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(mean_distance(points, valid, over="view"), torch.tensor([[4.0, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("over", ["sample", "view"])
def test_normalised_maps_have_mean_distance_one_and_an_empty_sample_is_left_alone(over):
    points, valid = maps()
    normal, size = normalize_pointmaps(points, valid, over)
    torch.testing.assert_close(mean_distance(normal, valid, over)[0], torch.ones_like(size[0]))
    assert (size[1] == 1).all()


def test_a_nan_outside_the_mask_leaves_the_gradient_finite():
    points, valid = maps()
    points.requires_grad_()
    mean_distance(points, valid).sum().backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()
