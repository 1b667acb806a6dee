import dataclasses

import pytest
import torch

from distill3d import models, reconstruct
from distill3d.errors import CheckpointError
from distill3d.infer.stream import load_state, predict_stream, save_state
from distill3d.types import Views
from tests.parity.official import fill_seeded, relative

SPEC = models.get("cut3r")
MAPS = ("pointmap_world", "pointmap_camera", "confidence_world", "world_from_camera")


@pytest.fixture(scope="module")
def model():
    return fill_seeded(SPEC.build(SPEC.variant("tiny")), SPEC)


@pytest.fixture
def images():
    return torch.rand(1, 5, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_views_one_by_one_are_the_sequence(model, images):
    found, _ = predict_stream(model, images)
    with torch.no_grad():
        expected = model(images)
    for field in MAPS:
        assert relative(getattr(found, field), getattr(expected, field)) < 1e-5, field


def test_a_sequence_goes_on_from_a_file_as_if_it_had_never_stopped(model, images, tmp_path):
    uninterrupted, last = predict_stream(model, images)
    _, state = predict_stream(model, images[:, :2])
    save_state(tmp_path / "state.safetensors", state)
    rest, again = predict_stream(model, images[:, 2:], load_state(tmp_path / "state.safetensors", model))
    for field in MAPS:
        assert torch.equal(getattr(rest, field), getattr(uninterrupted, field)[:, 2:])
    assert torch.equal(again.tokens, last.tokens)
    assert torch.equal(again.memory, last.memory)


def test_a_file_that_is_no_state_of_this_network_is_refused(model, images, tmp_path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(CheckpointError, match="holds no state"):
        load_state(path, model)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="holds no state"):
        load_state(path, model)
    save_state(path, predict_stream(model, images[:, :1])[1])
    other = SPEC.build(dataclasses.replace(SPEC.variant("tiny"), state_size=7))
    with pytest.raises(CheckpointError, match="of another network"):
        load_state(path, other)


def test_more_views_than_a_window_holds_are_streamed_in_one_sequence(model, images):
    found = reconstruct(model, Views(images=images), max_views=3, pose_method="model")
    assert found.info["windows"] == []
    expected, _ = predict_stream(model, images)
    # The same shapes in the frame of view 0: nothing was aligned, so distances are exactly those of the sequence.
    assert found.prediction.confidence_world is not None
    torch.testing.assert_close(found.prediction.confidence_world, expected.confidence_world)
