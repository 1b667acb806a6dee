import math

import pytest
import torch

from distill3d.geometry.cameras import camera_rays, centred_intrinsics, unproject_depth
from distill3d.geometry.shift import focal_and_shift_from_pointmap, view_plane_grid


def scene(focal, height=48, width=80, batch=1):
    """Camera points of a wavy wall seen with this focal length."""
    generator = torch.Generator().manual_seed(5)
    depth = 2 + torch.rand(batch, 6, 8, generator=generator)
    depth = torch.nn.functional.interpolate(depth[:, None], (height, width), mode="bilinear")[:, 0]
    return unproject_depth(depth, centred_intrinsics(torch.full((batch,), float(focal)), height, width))


def shifted(points, scale, shift):
    """Affine-invariant version of camera points: the depth that the network gives is off by `shift`."""
    return (points - torch.tensor([0.0, 0.0, shift])) * scale


@pytest.mark.parametrize(("focal", "scale", "shift"), [(60, 1.0, 0.7), (40, 0.2, -0.4), (150, 7.0, 0.0)])
def test_a_planted_focal_length_and_shift_are_found_again(focal, scale, shift):
    found_focal, found_shift = focal_and_shift_from_pointmap(shifted(scene(focal), scale, shift))
    assert found_focal.item() == pytest.approx(focal, rel=1e-4)
    assert found_shift.item() == pytest.approx(shift * scale, rel=1e-3, abs=1e-4)


def test_with_a_known_focal_length_only_the_shift_is_sought():
    focal, shift = focal_and_shift_from_pointmap(shifted(scene(60), 1.0, 0.5), focal=torch.tensor([60.0]))
    assert focal.item() == 60
    assert shift.item() == pytest.approx(0.5, rel=1e-4)


def test_points_outside_the_mask_change_nothing():
    points, valid = shifted(scene(60), 1.0, 0.5), torch.ones(1, 48, 80, dtype=torch.bool)
    valid[:, 10:20] = False
    expected = focal_and_shift_from_pointmap(points, valid)
    for value in (torch.nan, torch.inf, -3.0):
        spoilt = points.clone()
        spoilt[~valid] = value
        assert focal_and_shift_from_pointmap(spoilt, valid) == expected


def test_too_few_points_give_the_half_diagonal_and_no_shift():
    valid = torch.zeros(1, 48, 80, dtype=torch.bool)
    focal, shift = focal_and_shift_from_pointmap(scene(60), valid)
    assert focal.item() == pytest.approx(math.hypot(48, 80) / 2)
    assert shift.item() == 0
    assert focal_and_shift_from_pointmap(scene(60), valid, torch.tensor([33.0]))[0].item() == 33


def test_maps_of_a_batch_do_not_see_each_other():
    points = torch.cat([shifted(scene(60), 1.0, 0.5), shifted(scene(90), 3.0, -0.2)])
    focal, shift = focal_and_shift_from_pointmap(points.view(2, 1, 48, 80, 3))
    assert focal.shape == shift.shape == (2, 1)
    for row in range(2):
        alone = focal_and_shift_from_pointmap(points[row])
        torch.testing.assert_close(focal[row, 0], alone[0], rtol=1e-5, atol=0)
        torch.testing.assert_close(shift[row, 0], alone[1], rtol=1e-4, atol=1e-6)


def test_the_view_plane_is_measured_in_half_diagonals():
    height, width = 30, 50
    half_diagonal = math.hypot(height, width) / 2
    rays = camera_rays(centred_intrinsics(torch.tensor(half_diagonal), height, width), height, width)
    torch.testing.assert_close(view_plane_grid(height, width), rays[..., :2], rtol=1e-5, atol=1e-6)
    # A coarser grid over the same image: its cells' centres are means of the centres of the pixels in them.
    coarse = view_plane_grid(15, 25, aspect=width / height)
    fine = view_plane_grid(height, width).view(15, 2, 25, 2, 2).mean(dim=(1, 3))
    torch.testing.assert_close(coarse, fine, rtol=1e-5, atol=1e-6)
