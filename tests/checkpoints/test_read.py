import argparse
import collections
import pickle

import pytest
import safetensors.torch
import torch

from distill3d.checkpoints import read_weights
from distill3d.errors import CheckpointError

WEIGHTS = {"a.weight": torch.arange(600.0), "b": torch.ones(2, dtype=torch.float16)}


class Mischief:
    """Would run code when unpickled without care."""

    def __reduce__(self):
        return (print, ("this must never be printed",))


def assert_equal(found):
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


def test_safetensors_are_read_whatever_their_name(tmp_path):
    for name in ("model.safetensors", "model.bin"):
        safetensors.torch.save_file(WEIGHTS, tmp_path / name)
        assert_equal(read_weights(tmp_path / name))


@pytest.mark.parametrize("container", [None, "model", "state_dict"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickles_are_read_with_their_weights_inside_or_bare(tmp_path, container, zipped):
    content = collections.OrderedDict(WEIGHTS) if container is None else {container: WEIGHTS, "epoch": 3}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    assert_equal(read_weights(tmp_path / "model.pth"))


def test_a_file_with_the_arguments_of_its_training_is_read(tmp_path):
    args = argparse.Namespace(image_size=448, enc_args={"arch": "vit_small"})
    torch.save({"model": WEIGHTS, "args": args, "iter": 7}, tmp_path / "dune.pth")
    assert_equal(read_weights(tmp_path / "dune.pth"))


def test_a_file_that_wants_to_run_code_is_refused_and_does_not(tmp_path, capsys):
    torch.save({"model": WEIGHTS, "extra": Mischief()}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"bad\.pth holds more than tensors.*never run"):
        read_weights(tmp_path / "bad.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Mischief(), protocol=2))
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "plain.pkl")
    assert "never be printed" not in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.98])
@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_a_truncated_file_is_named(tmp_path, name, share):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(WEIGHTS, path)
    else:
        safetensors.torch.save_file(WEIGHTS, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=name):
        read_weights(path)


def test_files_without_weights_are_refused(tmp_path):
    (tmp_path / "page.pth").write_text("<html>Not found</html>")
    with pytest.raises(CheckpointError, match="neither safetensors nor a PyTorch file"):
        read_weights(tmp_path / "page.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_weights(tmp_path / "empty.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list, expected a dictionary"):
        read_weights(tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="There is no file"):
        read_weights(tmp_path / "absent.pth")


def test_a_file_that_may_not_be_opened_is_named(tmp_path, monkeypatch):
    torch.save(WEIGHTS, tmp_path / "model.pth")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(CheckpointError, match=r"model\.pth cannot be opened \(Permission denied\)"):
        read_weights(tmp_path / "model.pth")
