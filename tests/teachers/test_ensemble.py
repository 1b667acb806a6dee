import pytest
import torch

from distill3d import teachers
from distill3d.errors import ConfigError
from distill3d.types import Prediction, Views


class Says:
    """A teacher of one answer."""

    licence, weights_hash = "CC0", None

    def __init__(self, name, points, valid=None):
        self.name, self._points, self._valid = name, points, valid

    def settings(self):
        return {}

    def predict(self, views):
        return Prediction(pointmap_camera=self._points, valid=self._valid)


def cone():
    generator = torch.Generator().manual_seed(0)
    depth = 1 + torch.rand(1, 1, 6, 8, generator=generator)
    rays = torch.cat([torch.randn(1, 1, 6, 8, 2, generator=generator), torch.ones(1, 1, 6, 8, 1)], dim=-1)
    return rays * depth[..., None]


VIEWS = Views(images=torch.rand(1, 1, 3, 6, 8))


def test_members_that_agree_up_to_scale_give_the_first_with_full_confidence():
    points = cone()
    found = teachers.load("ensemble", members=[Says("a", points), Says("b", 3 * points)]).predict(VIEWS)
    assert torch.allclose(found.pointmap_camera, points, rtol=1e-5)
    assert torch.allclose(found.confidence_camera, torch.tensor(11.0), rtol=1e-3)


def test_an_outlier_is_outvoted_and_lowers_the_confidence():
    points, wrong = cone(), cone()
    wrong[0, 0, 2, 3] *= 5
    found = teachers.load("ensemble", members=[Says("a", wrong), Says("b", points), Says("c", points)]).predict(VIEWS)
    assert torch.allclose(found.pointmap_camera[..., 2], points[..., 2], rtol=1e-4)
    assert found.confidence_camera[0, 0, 2, 3] < found.confidence_camera[0, 0, 0, 0]


def test_a_pixel_counts_only_where_all_members_say_so():
    masks = [torch.ones(1, 1, 6, 8, dtype=torch.bool) for _ in range(2)]
    masks[1][0, 0, 0] = False
    members = [Says(str(index), cone(), mask) for index, mask in enumerate(masks)]
    found = teachers.load("ensemble", members=members).predict(VIEWS)
    assert torch.equal(found.valid, masks[1])


def test_one_teacher_is_no_ensemble():
    with pytest.raises(ConfigError, match="name two or more"):
        teachers.load("ensemble", members=[Says("a", cone())])
