import hashlib
import logging

import pytest
import safetensors.torch

import distill3d
from distill3d.checkpoints import licences, load_with_info, save_model, to_official, weights_hash
from distill3d.errors import CheckpointError, ConfigError
from tests.checkpoints.helpers import SPEC, TINY, tiny_student, write_shards


@pytest.fixture
def official(tmp_path):
    weights = to_official(tiny_student(), SPEC, aliases=False)
    path = tmp_path / "official.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


@pytest.fixture
def own(tmp_path):
    return save_model(tmp_path / "student.safetensors", tiny_student(), model_name="distill3r", config=TINY, meta={})


def test_fresh_weights_are_ready_to_use_and_repeat():
    model = distill3d.load_model("distill3r", variant="tiny")
    assert not model.training
    assert weights_hash(model) == weights_hash(tiny_student())


def test_official_files_own_files_and_run_folders_give_the_same_network(official, own):
    expected = weights_hash(tiny_student())
    assert weights_hash(distill3d.load_model("distill3r", weights=official, variant="tiny")) == expected
    assert weights_hash(distill3d.load_model("distill3r", weights=own)) == expected
    assert weights_hash(distill3d.load_model("distill3r", weights=own.parent, variant="tiny")) == expected
    assert weights_hash(distill3d.load_model(own)) == expected


def test_the_wrong_variant_is_explained(official, own):
    with pytest.raises(CheckpointError, match=r"official\.safetensors does not fit Distill3R.*Check the variant"):
        distill3d.load_model("distill3r", weights=official, variant="demo")
    with pytest.raises(CheckpointError, match="other settings than variant 'demo'"):
        distill3d.load_model("distill3r", weights=own, variant="demo")


def test_unknown_names_are_explained(tmp_path):
    with pytest.raises(ConfigError, match="no model 'vgg19'"):
        distill3d.load_model("vgg19")
    for absent in ("absent.pth", tmp_path / "absent", "./owner/name"):
        with pytest.raises(CheckpointError, match="no weight file or run folder"):
            distill3d.load_model("distill3r", weights=absent)


def test_fresh_weights_are_never_silent(caplog):
    with caplog.at_level(logging.WARNING):
        _, info = load_with_info("distill3r", variant="tiny")
    assert "distill3r has fresh random weights" in caplog.text
    assert info.source is None
    assert info.sha256 == {}


def test_the_record_names_the_files_and_their_hashes(official, own):
    _, info = load_with_info("distill3r", official, "tiny")
    assert info.files == (official,)
    assert info.sha256 == {"official.safetensors": hashlib.sha256(official.read_bytes()).hexdigest()}
    assert info.plain()["sha256"] == info.sha256
    assert "NAVER non-commercial" in info.licence
    _, info = load_with_info(own)
    assert (info.model, info.licence, info.files) == ("distill3r", "unknown", (own,))


def test_shards_are_loaded_by_their_index_or_their_folder_and_all_hashed(official):
    write_shards(official.parent / "sharded", safetensors.torch.load_file(official), "model.safetensors")
    index = official.parent / "sharded" / "model.safetensors.index.json"
    for place in (index, index.parent):
        model, info = load_with_info("distill3r", place, "tiny")
        assert weights_hash(model) == weights_hash(tiny_student())
        assert set(info.sha256) == {file.name for file in index.parent.iterdir()}
        assert len(info.sha256) == 3


def test_the_licence_is_told_once(own, caplog, monkeypatch):
    monkeypatch.setattr(licences, "_told", set())
    save_model(own, tiny_student(), model_name="distill3r", config=TINY, meta={"licence": "CC-BY-NC-4.0"})
    with caplog.at_level(logging.WARNING):
        distill3d.load_model(own)
        distill3d.load_model("distill3r", own)
    assert [record.message for record in caplog.records] == [
        f"{own}: licence CC-BY-NC-4.0. Commercial use is not allowed; this passes on to what is made from it."
    ]
