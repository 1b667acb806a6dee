import argparse
import dataclasses

import pytest
import torch

from distill3d import checkpoints, models
from distill3d.errors import CheckpointError, ConfigError
from tests.parity.official import fill_seeded, relative_points

SPEC = models.get("dune")


@pytest.fixture(scope="module")
def model():
    return fill_seeded(SPEC.build(SPEC.variants["tiny"]), SPEC)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 2, 3, 42, 56, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_an_encoder_says_nothing_about_geometry(model, images):
    prediction = model(images)
    assert prediction.descriptors.shape == (2, 2, 3, 4, 48)
    assert {name for name, value in vars(prediction).items() if value is not None} == {"descriptors"}


@torch.no_grad()
def test_each_view_alone_gives_what_it_gives_among_others(model, images):
    together = model(images).descriptors
    for sample in range(2):
        for view in range(2):
            alone = model(images[sample : sample + 1, view : view + 1]).descriptors
            assert relative_points(alone[0, 0], together[sample, view]) < 1e-5
    assert relative_points(model(images, head_chunk=3).descriptors, together) < 1e-5


@torch.no_grad()
def test_descriptors_lie_where_their_patch_lies(model, images):
    changed = images.clone()
    changed[0, 0, :, 14:28, 42:56] = 0
    difference = (model(changed).descriptors - model(images).descriptors)[0, 0].norm(dim=-1)
    assert divmod(int(difference.argmax()), 4) == (1, 3)


@pytest.mark.parametrize("variant", ["tiny", "tiny_distillation"])
def test_a_file_as_it_is_published_loads_by_name(tmp_path, images, variant):
    whole = fill_seeded(SPEC.build(SPEC.variants["tiny_distillation"]), SPEC, seed=3)
    content = {"model": checkpoints.to_official(whole, SPEC), "args": argparse.Namespace(image_size=70), "iter": 7}
    torch.save(content, tmp_path / "dune_vitsmall14_448.pth")
    loaded = checkpoints.load_model("dune", weights=tmp_path / "dune_vitsmall14_448.pth", variant=variant)
    with torch.no_grad():
        assert torch.equal(loaded(images).descriptors, whole(images).descriptors)


def test_our_own_file_brings_its_settings(tmp_path, model, images):
    path = checkpoints.save_model(
        tmp_path / "dune.safetensors", model, model_name="dune", config=model.config, meta={"licence": "none"}
    )
    loaded, info = checkpoints.load_saved(path)
    assert info.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(images).descriptors, model(images).descriptors)


def test_an_encoder_of_another_size_is_refused_by_name(model):
    other = SPEC.build(dataclasses.replace(SPEC.variants["tiny"], table_side=6))
    official = checkpoints.to_official(model, SPEC)
    with pytest.raises(CheckpointError, match=r"dune\.pth does not fit Dune.*instead of"):
        checkpoints.load_official(other, SPEC, official, source="dune.pth")


def test_gradients_reach_every_weight_that_is_used(images):
    model = fill_seeded(SPEC.build(SPEC.variants["tiny_distillation"]), SPEC)
    total = sum(features.square().mean() for features in model.project(images).values())
    (total + model(images).descriptors.square().mean()).backward()
    without = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    assert without == {"student.mask_token"}


def test_standardised_features_of_a_teacher_have_its_statistics_taken_out():
    norm = SPEC.build(SPEC.variants["tiny_distillation"]).teacher_norms["mast3r_vitlarge_16"].normalizers["patch"]
    norm.mean.fill_(3.0)
    norm.std[:32], norm.std[32:] = 2.0, 0.0
    found = norm(torch.full((1, 64), 4.0))
    assert found[0, :32].tolist() == [0.5] * 32
    assert found.isfinite().all()


def test_what_it_cannot_do_is_said_in_words(model):
    with pytest.raises(ConfigError, match="both sides must be multiples of the patch size 14"):
        model(torch.zeros(1, 1, 3, 30, 42))
    with pytest.raises(ConfigError, match="no projectors; build the variant"):
        model.project(torch.zeros(1, 1, 3, 28, 28))
