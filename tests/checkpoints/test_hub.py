"""The hub is a stand-in: what it was asked is on record. The last tests use the hub's own client on a cache by hand."""

import fnmatch
import shutil
import sys
import types
from pathlib import Path

import pytest
import safetensors.torch
import torch

from distill3d.checkpoints import file_sha256, hub, load_with_info, to_official, weights_hash
from distill3d.errors import CheckpointError
from tests.checkpoints.helpers import SPEC, tiny_student, write_shards

COMMIT = "0123456789012345678901234567890123456789"


class HubError(OSError):
    """As the client's errors: an OSError with many lines."""


class Hub(types.SimpleNamespace):
    """One repository, `someone/student`, and a cache that starts empty."""

    def __init__(self, folder):
        super().__init__()
        self.remote = folder / "remote"
        self.cache = folder / "snapshots" / COMMIT
        self.online = True
        self.asked = []
        self.remote.mkdir()

    def _ask(self, repository):
        self.asked.append(repository)
        if not self.online:
            raise HubError("no route to the hub\nlong story")
        if repository != "someone/student":
            raise HubError(f"404: {repository}\nlong story")

    def list_repo_files(self, repository):
        self._ask(repository)
        return [file.name for file in self.remote.iterdir()]

    def snapshot_download(self, repository, *, allow_patterns=None, local_files_only=False):
        if not local_files_only:
            self._ask(repository)
            self.cache.mkdir(parents=True, exist_ok=True)
            for file in self.remote.iterdir():
                if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                    shutil.copy(file, self.cache)
        elif repository != "someone/student" or not self.cache.exists():
            raise HubError("not in the cache")
        return str(self.cache)


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    made = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    return made


def put(path):
    weights = to_official(tiny_student(), SPEC, aliases=False)
    safetensors.torch.save_file({name: value.contiguous() for name, value in weights.items()}, path)


def test_weights_are_fetched_once_and_then_found_without_the_network(stand_in):
    put(stand_in.remote / "model.safetensors")
    torch.save({"x": torch.ones(1)}, stand_in.remote / "model.pt")
    model, info = load_with_info("distill3r", "someone/student", "tiny")
    assert weights_hash(model) == weights_hash(tiny_student())
    assert info.files == (stand_in.cache / "model.safetensors",)
    assert info.revision == COMMIT
    assert not (stand_in.cache / "model.pt").exists()
    stand_in.online = False
    stand_in.asked.clear()
    again, info_again = load_with_info("distill3r", "someone/student", "tiny")
    assert stand_in.asked == []
    assert weights_hash(again) == weights_hash(model)
    assert info_again == info


def test_shards_that_are_cached_in_part_are_completed(stand_in):
    stand_in.remote.rmdir()
    write_shards(stand_in.remote, to_official(tiny_student(), SPEC, aliases=False), "model.safetensors")
    first = hub.fetch("someone/student")
    assert first.name == "model.safetensors.index.json"
    (stand_in.cache / "model-00002-of-00002.safetensors").unlink()
    assert hub.fetch("someone/student") == first
    assert (stand_in.cache / "model-00002-of-00002.safetensors").is_file()


def test_a_hub_that_does_not_answer_is_explained_in_a_line(stand_in):
    with pytest.raises(CheckpointError, match=r"Cannot fetch someone/else from the hub \(404: someone/else\)\. Check"):
        hub.fetch("someone/else")
    stand_in.online = False
    with pytest.raises(
        CheckpointError, match=r"someone/student from the hub \(no route to the hub\).* give their path"
    ):
        hub.fetch("someone/student")


def test_a_repository_with_several_weights_or_none_is_refused(stand_in):
    with pytest.raises(CheckpointError, match=r"holds 0 weight files \(none ending in \.safetensors"):
        hub.fetch("someone/student")
    for name in ("model.safetensors", "other.safetensors"):
        put(stand_in.remote / name)
    with pytest.raises(CheckpointError, match=r"holds 2 weight files \(model\.safetensors, other\.safetensors\)"):
        hub.fetch("someone/student")


def test_without_the_hub_s_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'distill3d\[hub\]'"):
        hub.fetch("someone/student")


def test_only_files_of_the_hub_s_cache_have_a_revision():
    assert hub.revision(Path("hub/models--a--b/snapshots/c0ffee/sub/model.pt")) == "c0ffee"
    assert hub.revision(Path("runs/student.safetensors")) is None


def test_the_real_client_finds_a_cached_file_without_a_socket_and_names_what_is_absent(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--student"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    put(repository / "snapshots" / COMMIT / "model.safetensors")
    model, info = load_with_info("distill3r", "someone/student", "tiny")
    assert weights_hash(model) == weights_hash(tiny_student())
    assert info.revision == COMMIT
    with pytest.raises(CheckpointError, match=r"Cannot fetch someone/absent from the hub"):
        hub.fetch("someone/absent")


def test_a_cached_file_that_has_changed_on_disk_is_refused(stand_in, tmp_path):
    put(stand_in.remote / "model.safetensors")
    path = hub.fetch("someone/student")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    honest, other = file_sha256(path), "0" * 64
    for name in (honest, other):
        shutil.copy(path, blobs / name)
    path.unlink()
    path.symlink_to(blobs / honest)
    assert load_with_info("distill3r", "someone/student", "tiny")[1].sha256 == {"model.safetensors": honest}
    path.unlink()
    path.symlink_to(blobs / other)
    with pytest.raises(CheckpointError, match=f"is not what the hub gave: its SHA-256 is {honest}, expected {other}"):
        load_with_info("distill3r", "someone/student", "tiny")
