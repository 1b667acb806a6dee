import pytest
import torch

from distill3d import models
from distill3d.checkpoints import save_model
from distill3d.errors import CheckpointError, ConfigError
from distill3d.infer.network import open_network, trained_fit
from distill3d.models.dust3r import Dust3R, Dust3RConfig
from distill3d.types import Views

FIT = {"long_side": 112, "multiple": 14, "mode": "crop"}


def save_tiny(path, meta):
    config = models.get("distill3r").variant("tiny")
    return save_model(path, models.get("distill3r").build(config), model_name="distill3r", config=config, meta=meta)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my-run")
    meta = {"licence": "MIT", "cache": {"image_fit": FIT}, "training": {"settings": {"views": 3}}}
    return save_tiny(folder / "student.safetensors", meta)


def test_weights_tell_the_size_they_were_trained_at_and_words_go_before(weights):
    network = open_network(weights)
    assert (network.choose_fit().long_side, network.choose_fit().mode) == (112, "crop")
    assert (network.choose_fit(56).long_side, network.choose_fit(56).mode) == (56, "crop")
    assert network.choose_fit(mode="pad").mode == "pad"
    assert (network.licence, network.num_views_trained, network.most_views) == ("MIT", 3, 50)


def test_weights_that_do_not_tell_are_shown_518_pixels(tmp_path):
    network = open_network(save_tiny(tmp_path / "plain.safetensors", {}))
    assert network.fit is None
    assert network.choose_fit().long_side == 518
    assert (network.licence, network.label) == ("unknown", "plain")


def test_patches_of_16_fill_512_pixels(tmp_path):
    config = Dust3RConfig(encoder_dim=16, encoder_depth=1, encoder_heads=2, decoder_dim=8, decoder_depth=2,
                          decoder_heads=2, head="linear")  # fmt: skip
    path = save_model(tmp_path / "pair.safetensors", Dust3R(config), model_name="dust3r", config=config, meta={})
    fit = open_network(path).choose_fit()
    assert (fit.long_side, fit.multiple) == (512, 16)


def test_a_size_of_another_version_is_left_aside():
    assert trained_fit({"cache": {"image_fit": {"longest": 3}}}) is None
    assert trained_fit({"cache": "a path"}) is None


def test_a_run_folder_and_its_file_are_the_same_network(weights):
    folder, file = open_network(weights.parent), open_network(weights)
    assert folder.summary() == file.summary()
    assert folder.label == weights.parent.name
    named = open_network("distill3r", weights=weights)
    assert named.weights_hash == file.weights_hash


def test_prediction_needs_no_generator_and_repeats(weights):
    network = open_network(weights)
    views = Views(images=torch.rand(1, 2, 3, 28, 28, generator=torch.Generator().manual_seed(0)))
    first, second = network.predict(views), network.predict(views)
    assert torch.equal(first.pointmap_world, second.pointmap_world)
    assert not first.pointmap_world.requires_grad


@pytest.mark.parametrize(
    ("what", "options", "told"),
    [
        ("distill3r", {}, "without weights"),
        ("distil3r", {}, "no model 'distil3r'"),
        ("runs/7", {}, "no run folder or weight file"),
    ],
)
def test_what_is_not_there_is_told_in_words(what, options, told):
    with pytest.raises(CheckpointError, match=told):
        open_network(what, **options)


def test_options_that_would_be_ignored_are_refused(weights):
    with pytest.raises(ConfigError, match="--variant paper"):
        open_network(weights, variant="paper")
    with pytest.raises(ConfigError, match="--weights"):
        open_network(weights, weights=weights)
    with pytest.raises(ConfigError, match="looks up the truth"):
        open_network("ground-truth")
