import dataclasses
import json

import pytest
import safetensors.torch
import torch

from distill3d.checkpoints import find_weights, load_saved, read_info, save_model, weights_hash
from distill3d.checkpoints.saved import HEADER
from distill3d.errors import CheckpointError, OutputError
from tests.checkpoints.helpers import SPEC, TINY, tiny_student


@pytest.fixture
def saved(tmp_path):
    model = tiny_student()
    meta = {"licence": "CC0", "provenance": {"seed": 3}}
    return save_model(tmp_path / "student.safetensors", model, model_name="distill3r", config=TINY, meta=meta)


def rewrite_header(path, **changes):
    weights = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
    safetensors.torch.save_file(weights, path, {HEADER: json.dumps(header | changes)})


def test_a_model_comes_back_whole_with_its_settings_and_licence(saved):
    model, info = load_saved(saved)
    assert weights_hash(model) == weights_hash(tiny_student())
    assert not model.training
    assert info.config == TINY == model.config
    assert info.model == "distill3r"
    assert dict(info.meta) == {"licence": "CC0", "provenance": {"seed": 3}}


@pytest.mark.parametrize("name", list(SPEC.variants))
def test_the_settings_of_every_variant_survive_the_file(tmp_path, name):
    config = SPEC.variants[name]
    path = save_model(tmp_path / "x.safetensors", torch.nn.Linear(1, 1), model_name="distill3r", config=config, meta={})
    info = read_info(path)
    assert info.config == config
    assert info.meta["licence"] == "unknown"


def test_halves_on_disk_are_float32_in_memory(tmp_path):
    model = tiny_student()
    path = save_model(
        tmp_path / "half.safetensors", model, model_name="distill3r", config=TINY, meta={}, dtype=torch.float16
    )
    assert path.stat().st_size < 0.6 * sum(value.numel() * 4 for value in model.parameters())
    loaded, _ = load_saved(path)
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_a_run_folder_stands_for_its_finished_weights(saved):
    assert find_weights(saved.parent) == saved
    assert load_saved(saved.parent)[1].path == saved
    saved.rename(saved.with_name("best.safetensors"))
    assert find_weights(saved.parent).name == "best.safetensors"


def test_a_folder_or_place_without_weights_is_explained(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no finished weights.*student\.safetensors.*--resume"):
        load_saved(tmp_path)
    with pytest.raises(CheckpointError, match="neither a weight file nor a run folder"):
        load_saved(tmp_path / "absent")


def test_a_file_of_somebody_else_is_refused(tmp_path):
    safetensors.torch.save_file({"x": torch.ones(1)}, tmp_path / "theirs.safetensors")
    with pytest.raises(CheckpointError, match="does not say which network it belongs to"):
        load_saved(tmp_path / "theirs.safetensors")


def test_files_of_the_future_are_refused_with_both_numbers(saved):
    rewrite_header(saved, format=2)
    with pytest.raises(CheckpointError, match="format 2, and we know 1"):
        load_saved(saved)


@pytest.mark.parametrize(
    "changes", [{"model": "distill9r"}, {"config": {"colour": "red"}}, {"config": {"encoder_dim": 7}}]
)
def test_settings_that_this_version_does_not_know_are_refused(saved, changes):
    rewrite_header(saved, **changes)
    with pytest.raises(CheckpointError, match="settings that this version does not know"):
        read_info(saved)


def test_weights_that_do_not_fit_their_own_settings_are_refused(saved):
    changed = dataclasses.asdict(dataclasses.replace(TINY, dpt_hidden=10))
    rewrite_header(saved, config=changed)
    with pytest.raises(CheckpointError, match=r"does not fit Distill3R: 0 missing.*of another shape \['head_camera"):
        load_saved(saved)


def test_a_place_that_takes_no_file_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        save_model(
            tmp_path / "file" / "x.safetensors", torch.nn.Linear(1, 1), model_name="distill3r", config=TINY, meta={}
        )


def test_the_hash_tells_networks_apart_and_nothing_else():
    model, same = tiny_student(), tiny_student()
    assert weights_hash(model) == weights_hash(same)
    with torch.no_grad():
        same.fusion.norm.bias[0] += 1e-6
    assert weights_hash(model) != weights_hash(same)
    assert len(weights_hash(model)) == 64
