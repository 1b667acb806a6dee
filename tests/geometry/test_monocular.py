import pytest
import torch

from distill3d.errors import GeometryError
from distill3d.geometry.cameras import centred_intrinsics, project_points, unproject_depth
from distill3d.geometry.monocular import solve_affine
from distill3d.types import Prediction

HEIGHT, WIDTH, FOCAL = 40, 60, 55.0


def affine(views=2, shift=0.5, metric_scale=None):
    """What a perfect monocular network might say, and the camera points in its units before the shift was lost."""
    depth = 2 + torch.rand(1, views, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    points = unproject_depth(depth, centred_intrinsics(torch.full((1, views), FOCAL), HEIGHT, WIDTH))
    raw = Prediction(
        pointmap_camera=points - torch.tensor([0.0, 0.0, shift]),
        valid=torch.ones(1, views, HEIGHT, WIDTH, dtype=torch.bool),
        metric_scale=metric_scale,
    )
    return raw, points


def test_points_depth_and_camera_come_out_right_and_agree():
    raw, points = affine()
    found = solve_affine(raw)
    torch.testing.assert_close(found.pointmap_camera, points, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.depth, points[..., 2], rtol=1e-3, atol=1e-3)
    pixels, _ = project_points(found.pointmap_camera, found.intrinsics)
    assert (pixels[0, 0, 3, 7] - torch.tensor([7.0, 3.0])).abs().max() < 1e-3


@pytest.mark.parametrize("scale", [torch.tensor([3.0]), torch.tensor([[3.0, 3.0]])], ids=["sample", "views"])
def test_the_metric_scale_is_multiplied_in_and_becomes_one(scale):
    raw, points = affine(metric_scale=scale)
    found = solve_affine(raw)
    torch.testing.assert_close(found.depth, 3 * points[..., 2], rtol=1e-3, atol=1e-3)
    assert torch.equal(found.metric_scale, torch.ones_like(scale))


def test_points_behind_the_camera_are_not_valid():
    raw, _ = affine(views=1)
    raw.pointmap_camera[0, 0, 0, 0] = torch.tensor([0.1, 0.1, -5.0])
    raw.valid[0, 0, 0, 0] = False
    found = solve_affine(Prediction(pointmap_camera=raw.pointmap_camera, valid=raw.valid))
    assert not found.valid[0, 0, 0, 0]
    assert found.depth[0, 0, 0, 0] == 0
    assert found.valid.sum() == HEIGHT * WIDTH - 1


def test_a_prediction_without_camera_points_is_refused():
    with pytest.raises(GeometryError, match="needs camera points"):
        solve_affine(Prediction(depth=torch.ones(1, 1, 4, 4)))
