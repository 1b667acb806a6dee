import numpy as np
import pytest
import torch

from distill3d.eval.inputs import crop_around_principal_point, input_size, resize_like_pi3, resize_views
from distill3d.geometry.cameras import project_points, unproject_depth
from distill3d.types import Views


@pytest.mark.parametrize(
    ("size", "side", "multiple", "expected"),
    [
        ((480, 640), 518, 14, (392, 518)),
        ((480, 640), 512, 16, (384, 512)),
        ((640, 480), 518, 14, (518, 392)),
        ((224, 224), 112, 8, (112, 112)),
        ((10, 1000), 518, 14, (14, 518)),
    ],
)
def test_the_longer_side_is_as_asked_and_both_are_whole_patches(size, side, multiple, expected):
    assert input_size(size, side, multiple) == expected


def test_the_quirk_and_its_mend_differ_where_the_ratios_do():
    camera = np.array([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]])
    size, quirky = resize_like_pi3(camera, (480, 640))
    assert size == (392, 518)
    _, clean = resize_like_pi3(camera, (480, 640), clean=True)
    assert clean[0, 0] == pytest.approx(525 * 518 / 640)
    assert quirky[0, 0] == quirky[1, 1] == clean[1, 1] == pytest.approx(525 * 392 / 480)


def views(height=24, width=32, cx=14.0, cy=12.5):
    k = torch.tensor([[30.0, 0, cx], [0, 30.0, cy], [0, 0, 1]])[None, None]
    depth = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0)) + 1
    return Views(images=torch.rand(1, 1, 3, height, width), intrinsics=k, depth=depth)


def test_points_stay_where_they_are_when_a_picture_is_cut_or_enlarged():
    before = views()
    for after in (crop_around_principal_point(before), resize_views(before, (48, 64))):
        assert after.images.shape[-2:] == after.depth.shape[-2:]
        points = unproject_depth(after.depth, after.intrinsics)
        pixels, _ = project_points(points, before.intrinsics)
        inside = (pixels >= -0.5).all(dim=-1) & (pixels[..., 0] <= 31.5) & (pixels[..., 1] <= 23.5)
        assert bool(inside.all())
        nearest = pixels.round().long()
        there = before.depth[0, 0][nearest[0, 0, ..., 1].clamp(0, 23), nearest[0, 0, ..., 0].clamp(0, 31)]
        assert (there == after.depth[0, 0]).float().mean() > 0.95


def test_the_principal_point_is_the_middle_of_what_is_cut():
    cut = crop_around_principal_point(views())
    height, width = cut.images.shape[-2:]
    assert abs(float(cut.intrinsics[0, 0, 0, 2]) - (width - 1) / 2) <= 0.5
    assert abs(float(cut.intrinsics[0, 0, 1, 2]) - (height - 1) / 2) <= 0.5
