import json

import pytest
import torch

from distill3d.checkpoints import find_weights, read_weights
from distill3d.checkpoints.locate import choose_weights
from distill3d.errors import CheckpointError
from tests.checkpoints.helpers import write_shards

WEIGHTS = {name: torch.full((3,), float(place)) for place, name in enumerate("abcde")}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.pt", "model.safetensors", "config.json"], ["model.safetensors"]),
        (["model.pt", "README.md"], ["model.pt"]),
        (["a-00001-of-00002.bin", "a-00002-of-00002.bin", "a.bin.index.json"], ["a.bin.index.json"]),
        (["sub/model.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["sub/model.ckpt"], ["sub/model.ckpt"]),
        (["one.pth", "two.pth"], ["one.pth", "two.pth"]),
        (["config.json"], []),
    ],
)
def test_the_weights_among_other_files(names, chosen):
    assert choose_weights(names) == chosen


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_shards_make_one_set_of_weights(tmp_path, name):
    index = write_shards(tmp_path / "sharded", WEIGHTS, name)
    assert find_weights(index.parent) == index
    found = read_weights(index)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[key], WEIGHTS[key]) for key in WEIGHTS)


def test_a_missing_shard_is_named(tmp_path):
    index = write_shards(tmp_path / "sharded", WEIGHTS, "model.safetensors")
    (index.parent / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lists 2 shards, 1 of them missing.*model-00002-of-00002\.safetensors"):
        read_weights(index)


def test_a_shard_of_another_download_is_named(tmp_path):
    index = write_shards(tmp_path / "sharded", WEIGHTS, "model.bin")
    torch.save({"a": WEIGHTS["a"]}, index.parent / "model-00001-of-00002.bin")
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.bin lacks 2 of the 3 tensors.*'c'"):
        read_weights(index)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "..", 7])
def test_an_index_does_not_lead_out_of_its_folder(tmp_path, shard):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match="expected a file beside the index"):
        read_weights(index)


@pytest.mark.parametrize(("text", "words"), [('{"weight', "no readable index"), ('{"x": 1}', "has no weight_map")])
def test_a_damaged_index_is_named(tmp_path, text, words):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(CheckpointError, match=words):
        read_weights(index)


def test_a_folder_with_several_weights_asks_for_one(tmp_path):
    for name in ("one.pth", "two.pth"):
        torch.save(WEIGHTS, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"holds 2 weight files \(one\.pth, two\.pth\), expected one"):
        find_weights(tmp_path)


def test_a_pointer_in_place_of_the_weights_is_explained(tmp_path):
    (tmp_path / "model.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(CheckpointError, match=r"model\.pt is a Git LFS pointer"):
        read_weights(tmp_path / "model.pt")
