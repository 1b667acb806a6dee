import sys
import types

import pytest
import safetensors.torch
import torch

import distill3d
from distill3d.checkpoints import save_model, to_official, weights_hash
from distill3d.errors import CheckpointError, ConfigError
from tests.checkpoints.helpers import SPEC, TINY, tiny_student


@pytest.fixture
def official(tmp_path):
    weights = to_official(tiny_student(), SPEC, aliases=False)
    path = tmp_path / "official.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


@pytest.fixture
def own(tmp_path):
    return save_model(tmp_path / "student.safetensors", tiny_student(), model_name="distill3r", config=TINY, meta={})


@pytest.fixture
def hub(monkeypatch, tmp_path, official):
    """A hub that knows one repository."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    official.rename(folder / "model.safetensors")

    class HfHubHTTPError(OSError):
        pass

    def snapshot_download(repository, allow_patterns):
        if repository != "someone/student":
            raise HfHubHTTPError(f"404: {repository}\nlong story")
        return str(folder)

    module = types.SimpleNamespace(
        snapshot_download=snapshot_download, errors=types.SimpleNamespace(HfHubHTTPError=HfHubHTTPError)
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return folder


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


def test_a_hub_id_is_fetched(hub):
    model = distill3d.load_model("distill3r", weights="someone/student", variant="tiny")
    assert weights_hash(model) == weights_hash(tiny_student())


def test_a_hub_that_does_not_answer_is_explained_in_a_line(hub):
    with pytest.raises(CheckpointError, match=r"Cannot fetch someone/else from the hub \(404: someone/else\)\. Check"):
        distill3d.load_model("distill3r", weights="someone/else", variant="tiny")


def test_a_hub_repository_with_several_weights_is_refused(hub):
    safetensors.torch.save_file({"x": torch.ones(1)}, hub / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 2 weight files \(model\.safetensors, other\.safetensors\)"):
        distill3d.load_model("distill3r", weights="someone/student", variant="tiny")


def test_without_the_hub_s_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'distill3d\[hub\]'"):
        distill3d.load_model("distill3r", weights="someone/student")
