import dataclasses
import logging

import pytest
import torch

from distill3d.checkpoints import licences, load_encoder, load_official, to_official
from distill3d.errors import CheckpointError
from distill3d.nn.dino_vit import DinoViT
from tests.checkpoints.helpers import SPEC, TINY, tiny_student

FULL = dataclasses.replace(TINY, unused_weights=True)


def scrambled(model):
    with torch.no_grad():
        for value in model.parameters():
            value.normal_()
    return model


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("config", [TINY, FULL], ids=["lean", "full"])
@pytest.mark.parametrize("aliases", [True, False])
@pytest.mark.parametrize("prefix", ["", "student."])
def test_official_names_and_back_are_the_identity(config, aliases, prefix):
    model, other = scrambled(SPEC.build(config)), SPEC.build(config)
    official = to_official(model, SPEC, aliases=aliases)
    assert ("downstream_head.dpt.scratch.layer1_rn.weight" in official) == aliases
    load_official(other, SPEC, {prefix + name: value for name, value in official.items()}, source="test")
    assert_equal(other.state_dict(), model.state_dict())


def test_a_file_with_the_aliases_alone_is_enough():
    model, other = scrambled(SPEC.build(FULL)), SPEC.build(FULL)
    official = to_official(model, SPEC)
    kept = {name: value for name, value in official.items() if ".scratch.layer_rn." not in name}
    load_official(other, SPEC, kept, source="test")
    assert_equal(other.state_dict(), model.state_dict())


def test_weights_that_are_never_used_are_left_out_where_the_network_has_no_place_for_them():
    full, lean = scrambled(SPEC.build(FULL)), SPEC.build(TINY)
    official = to_official(full, SPEC) | {"decoder.image_idx_emb": torch.zeros(1000, 48)}
    load_official(lean, SPEC, official, source="test")
    assert torch.equal(lean.fusion.embed.weight, full.fusion.embed.weight)
    with pytest.raises(CheckpointError, match=r"9 missing .*encoder\.mask_token"):
        load_official(SPEC.build(FULL), SPEC, to_official(tiny_student(), SPEC), source="test")


def encoder_weights(chunked, prefix=""):
    source = DinoViT(dim=32, depth=2, num_heads=2, patch_size=14, table_side=4, mask_token=True, layer_scale=None)
    weights = scrambled(source).state_dict()
    if chunked:
        weights = {name.replace("blocks.", "blocks.0."): value for name, value in weights.items()}
    return source, {prefix + name: value for name, value in weights.items()}


@pytest.mark.parametrize(("chunked", "family"), [(True, "dune"), (False, "dinov2")])
@pytest.mark.parametrize("prefix", ["", "module.encoder."])
def test_an_encoder_is_loaded_into_the_student_s_encoder_alone(chunked, family, prefix):
    source, weights = encoder_weights(chunked, prefix)
    if prefix:
        weights["module.projectors.teacher.weight"] = torch.ones(3)
    student, untouched = tiny_student(), tiny_student()
    assert load_encoder(student.encoder, weights) == family
    for name, value in student.encoder.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name
    assert torch.equal(student.fusion.embed.weight, untouched.fusion.embed.weight)


def test_an_encoder_file_is_read_from_disk_with_the_mask_token_where_there_is_a_place_for_it(tmp_path):
    source, weights = encoder_weights(True, "encoder.")
    torch.save({"model": weights, "iter": 1}, tmp_path / "dune.pth")
    student = SPEC.build(FULL)
    assert load_encoder(student.encoder, tmp_path / "dune.pth") == "dune"
    assert torch.equal(student.encoder.mask_token, source.mask_token)


def test_an_encoder_of_another_size_is_refused_by_name():
    _, weights = encoder_weights(True)
    weights["pos_embed"] = torch.zeros(1, 26, 32)
    with pytest.raises(CheckpointError, match=r"x\.pth does not fit DinoViT.*pos_embed: \(1, 26, 32\) instead of"):
        load_encoder(tiny_student().encoder, weights, source="x.pth")
    with pytest.raises(CheckpointError, match="holds no encoder blocks"):
        load_encoder(tiny_student().encoder, {"conv.weight": torch.zeros(3)})


def test_the_wrong_way_to_resize_positions_is_warned_about(caplog):
    _, weights = encoder_weights(chunked=False)
    with caplog.at_level(logging.WARNING):
        load_encoder(tiny_student().encoder, weights, source="dinov2.pth")
    assert "dinov2.pth is a dinov2 encoder, but its position table will be resized by 'offset'" in caplog.text


def test_the_licence_of_an_encoder_is_told(caplog, monkeypatch):
    monkeypatch.setattr(licences, "_told", set())
    _, weights = encoder_weights(chunked=True)
    with caplog.at_level(logging.WARNING):
        load_encoder(tiny_student().encoder, weights, source="dune.pth")
    assert "dune.pth: licence NAVER non-commercial. Commercial use is not allowed" in caplog.text
