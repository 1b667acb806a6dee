"""Adapter files: what they hold, and what they refuse."""

import json

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from distill3d.adapters import add_lora, load_adapter, save_adapter
from distill3d.adapters.files import FILE, HEADER, is_adapter, read_adapter
from distill3d.errors import CheckpointError, ConfigError
from tests.adapters.helpers import QKV, adapted_encoder, make_encoder, some_tokens


@pytest.fixture
def saved(tmp_path):
    return save_adapter(tmp_path / FILE, adapted_encoder("frobenius"), model_name="vggt", meta={"licence": "CC0"})


def test_an_adapter_comes_back_bit_for_bit_and_without_its_base(saved):
    model = make_encoder()
    info = load_adapter(saved.parent, model)  # a run folder will do
    assert (info.model, info.rule, info.rank, info.alpha) == ("vggt", "frobenius", 4, 8)
    assert info.layers == ("blocks.0.attn.qkv", "blocks.1.attn.qkv")
    assert info.meta["licence"] == "CC0"
    assert torch.equal(model(some_tokens()), adapted_encoder("frobenius")(some_tokens()))
    assert set(load_file(saved)) == {f"{layer}.lora_{which}" for layer in info.layers for which in "AB"}
    assert is_adapter(saved)
    assert is_adapter(saved.parent)


def test_another_base_is_refused_unless_asked_for(saved):
    with pytest.raises(CheckpointError, match="trained on other weights of vggt"):
        load_adapter(saved, make_encoder(seed=1))
    assert load_adapter(saved, make_encoder(seed=1), check_base=False).rank == 4
    with pytest.raises(CheckpointError, match=r"adapts 2 layers of vggt, but this Linear has no linear layer"):
        load_adapter(saved, torch.nn.Linear(2, 2))


def test_a_matrix_that_is_missing_or_of_another_shape_changes_nothing(saved):
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(saved)
    removed = tensors.pop("blocks.0.attn.qkv.lora_A")
    tensors["blocks.1.attn.qkv.lora_B"] = tensors["blocks.1.attn.qkv.lora_B"][:, :2].contiguous()
    tensors["stray"] = removed
    broken = saved.with_name("broken.safetensors")
    safetensors.torch.save_file(tensors, broken, metadata)
    model = make_encoder()
    with pytest.raises(CheckpointError, match=r"1 matrices missing.*1 left over \['stray'\], 1 of another shape"):
        load_adapter(broken, model)
    assert torch.equal(model(some_tokens()), make_encoder()(some_tokens()))


def test_what_is_no_adapter_of_ours_is_refused_in_words(saved, tmp_path):
    with pytest.raises(CheckpointError, match="There is no adapter at"):
        read_adapter(tmp_path / "absent.safetensors")
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(1)}, other)
    with pytest.raises(CheckpointError, match="not written by distill3d as an adapter"):
        read_adapter(other)
    assert not is_adapter(other)
    newer = tmp_path / "newer.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(1)}, newer, {HEADER: json.dumps({"format": 99})})
    with pytest.raises(CheckpointError, match="adapter file of format 99, and we know 1"):
        read_adapter(newer)


def test_only_adapters_of_one_kind_make_a_file(tmp_path):
    with pytest.raises(ConfigError, match="adapters of 0 kinds"):
        save_adapter(tmp_path / FILE, make_encoder(), model_name="vggt", meta={})
    model = make_encoder()
    add_lora(model, rf"blocks\.0\.{QKV}", rank=2)
    add_lora(model, rf"blocks\.1\.{QKV}", rank=4)
    with pytest.raises(ConfigError, match="adapters of 2 kinds"):
        save_adapter(tmp_path / FILE, model, model_name="vggt", meta={})
