import dataclasses
import json
import logging

import pytest
import torch
from torch import nn

from distill3d.errors import ConfigError, DataError, GeometryError
from distill3d.geometry.poses import transform_points
from distill3d.infer.reconstruct import predict, reconstruct
from distill3d.types import Prediction, Views
from tests.geometry.cases import generator
from tests.infer.exact import HEIGHT, WIDTH, ExactModel, Place

PLACE = Place(23)
WORLD = transform_points(PLACE.world_from_camera, PLACE.local)


def test_an_exact_model_gives_the_exact_place():
    model = ExactModel(PLACE, local_size=0.3)
    found = reconstruct(model, PLACE.views(), confidence_percentile=0)
    assert model.calls == [list(range(23))]
    torch.testing.assert_close(found.prediction.pointmap_world, WORLD, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.prediction.world_from_camera, PLACE.world_from_camera, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.prediction.depth, PLACE.depth, atol=1e-3, rtol=1e-3)
    assert found.keep.all()
    assert found.names[:2] == ("view-000", "view-001")
    json.dumps(found.info)


def test_windows_of_different_size_are_joined_into_the_same_place():
    model = ExactModel(PLACE, sizes=(1.0, 0.2, 5.0))
    found = reconstruct(model, PLACE.views(), max_views=9, num_anchors=3)
    assert len(model.calls) == 4
    assert all(len(call) <= 9 and call[0] == 0 for call in model.calls)
    torch.testing.assert_close(found.prediction.pointmap_world, WORLD, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(found.prediction.world_from_camera, PLACE.world_from_camera, atol=2e-3, rtol=2e-3)
    assert found.info["window_scales"] == pytest.approx([5.0, 0.2, 1.0], rel=1e-3)
    assert found.info["windows"] == model.calls


def test_the_result_are_ordinary_tensors_and_the_model_keeps_its_mode():
    model = ExactModel(Place(2)).train()
    found = reconstruct(model, Place(2).views())
    assert model.training
    assert found.prediction.pointmap_world is not None
    assert not found.prediction.pointmap_world.is_inference()


def test_the_least_certain_share_of_all_pixels_is_not_kept():
    found = reconstruct(ExactModel(Place(3)), Place(3).views(), confidence_percentile=75)
    assert found.keep.float().mean().item() == pytest.approx(0.25, abs=0.01)
    confidence = found.prediction.confidence_world
    assert confidence is not None
    assert confidence[found.keep].min() > confidence[~found.keep].max()
    assert found.info["confidence_threshold"] == pytest.approx(confidence[found.keep].min().item())


@pytest.mark.parametrize("drop", [{"confidence": True}, {"camera": True}])
def test_a_model_may_lack_heads(drop):
    found = reconstruct(ExactModel(Place(3), **drop), Place(3).views(), confidence_percentile=0)
    assert found.prediction.confidence_world is not None
    assert found.prediction.pointmap_camera is not None
    torch.testing.assert_close(found.prediction.depth, Place(3).depth, atol=1e-2, rtol=1e-2)
    assert found.keep.all()


def test_padding_is_neither_asked_nor_kept():
    views = Place(3).views()
    valid = torch.ones(1, 3, HEIGHT, WIDTH, dtype=torch.bool)
    valid[:, 1, :4] = False
    found = reconstruct(ExactModel(Place(3)), dataclasses.replace(views, valid=valid), confidence_percentile=0)
    assert torch.equal(found.keep, valid)


def test_one_view_is_a_relief_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        found = reconstruct(ExactModel(Place(1)), Place(1).views())
    assert "only one view" in caplog.text
    torch.testing.assert_close(found.prediction.depth, Place(1).depth, atol=1e-3, rtol=1e-3)


def test_predict_gives_what_the_model_says_and_no_more():
    model = ExactModel(Place(3), sizes=(4.0,)).train()
    found = predict(model, Place(3).views())
    world = 4 * transform_points(Place(3).world_from_camera, Place(3).local)
    torch.testing.assert_close(found.pointmap_world, world, atol=1e-4, rtol=1e-4)
    assert found.world_from_camera is None
    assert model.training


class Broken(nn.Module):
    def forward(self, images, *, head_chunk=None):
        return Prediction(pointmap_world=torch.full((*images.shape[:2], *images.shape[-2:], 3), torch.nan))


def test_a_model_that_gives_only_nan_is_reported():
    with pytest.raises(GeometryError, match="weights fit"):
        reconstruct(Broken(), Place(2).views())


def test_wrong_calls_are_refused_in_words():
    model, views = ExactModel(Place(2)), Place(2).views()
    with pytest.raises(DataError, match="2 views but 1 names"):
        reconstruct(model, views, names=["a.png"])
    with pytest.raises(DataError, match="no view"):
        reconstruct(model, Views(images=torch.zeros(1, 0, 3, 4, 4)))
    with pytest.raises(DataError, match="batch of 2"):
        reconstruct(model, Views(images=torch.zeros(2, 2, 3, 4, 4)))
    with pytest.raises(ConfigError, match="below 100"):
        reconstruct(model, views, confidence_percentile=100)


class Narrow(ExactModel):
    """A device that holds six views."""

    def forward(self, images, *, head_chunk=None):
        if images.shape[1] > 6:
            raise torch.OutOfMemoryError
        return super().forward(images, head_chunk=head_chunk)


def test_views_that_do_not_fit_into_memory_are_split(caplog):
    with caplog.at_level(logging.WARNING):
        found = reconstruct(Narrow(PLACE, sizes=(1.0, 3.0)), PLACE.views(), max_views=None)
    assert "windows of 5 views" in caplog.text
    torch.testing.assert_close(found.prediction.world_from_camera, PLACE.world_from_camera, atol=2e-3, rtol=2e-3)


class Noisy(ExactModel):
    def forward(self, images, *, head_chunk=None):
        exact = super().forward(images, head_chunk=head_chunk)
        noise = 0.02 * torch.randn(exact.pointmap_world.shape, generator=generator(len(self.calls)))
        return dataclasses.replace(exact, pointmap_world=exact.pointmap_world + noise)


def test_two_runs_of_a_noisy_model_give_the_same_bytes():
    one, two = (reconstruct(Noisy(PLACE), PLACE.views(), max_views=9) for _ in range(2))
    assert one.prediction.world_from_camera is not None
    assert two.prediction.world_from_camera is not None
    assert torch.equal(one.prediction.world_from_camera, two.prediction.world_from_camera)
    assert torch.equal(one.keep, two.keep)
    torch.testing.assert_close(one.prediction.world_from_camera, PLACE.world_from_camera, atol=2e-2, rtol=0)
