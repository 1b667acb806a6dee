import numpy as np
import pytest
import torch

from distill3d.geometry.undistortion import undistorted_size


def test_the_camera_of_a_stored_picture_is_the_recorded_one(fixtures):
    with np.load(fixtures / "data_formats/megadepth.npz") as case:
        rows = case["intrinsics"]
    for width, height, focal, cx, cy, k1, stored_width, stored_height, fx, fy, *_ in rows:
        intrinsics = torch.tensor([[focal, 0, cx - 0.5], [0, focal, cy - 0.5], [0, 0, 1]], dtype=torch.float64)
        high, wide = undistorted_size(intrinsics, "SIMPLE_RADIAL", (k1,), (int(height), int(width)))
        assert focal * stored_width / wide == pytest.approx(fx, rel=1e-9)
        assert focal * stored_height / high == pytest.approx(fy, rel=1e-9)


def test_a_pinhole_loses_a_pixel_to_rounding_and_barrels_and_cushions_change_the_size():
    intrinsics = torch.tensor([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]], dtype=torch.float64)
    size = (480, 640)
    assert undistorted_size(intrinsics, "SIMPLE_RADIAL", (0.0,), size) == (479, 639)
    high, wide = undistorted_size(intrinsics, "SIMPLE_RADIAL", (0.1,), size)
    assert high < 480
    assert wide < 640
    high, wide = undistorted_size(intrinsics, "SIMPLE_RADIAL", (-0.1,), size)
    assert high > 480
    assert wide > 640
