"""Whose weights they were and under which licence stands in what is made from them."""

import hashlib

import torch

from distill3d import models
from distill3d.checkpoints import to_official
from distill3d.teachers.zoo import load_network


def official_file(path, name, variant):
    spec = models.get(name)
    torch.save({"model": to_official(spec.build(spec.variant(variant)), spec)}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_teacher_of_official_weights_has_their_licence_and_their_hash(tmp_path):
    file = tmp_path / "model.pt"
    sha256 = official_file(file, "moge", "tiny2")
    teacher = load_network("moge", weights=file, variant="tiny2")
    assert teacher.licence == "MIT"
    assert teacher.settings()["files_sha256"] == [sha256]
    file = tmp_path / "pi3.pt"
    official_file(file, "pi3", "tiny")
    assert load_network("pi3", weights=file, variant="tiny").licence == "CC-BY-NC-4.0"
    assert load_network("pi3", weights=file, variant="tiny", licence="mine").licence == "mine"
