"""Mistakes that users make end with code 2 and words that help."""

import errno
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d import files
from tests.cli.calls import build_cache, call, evaluate, save_fresh_student, train


def refused(called, *words):
    """The command ended with code 2, said all these words, and showed no traceback."""
    assert called.code == 2, called.out + called.err
    for word in words:
        assert str(word) in called.err
    assert "Traceback" not in called.err


def photos(folder, count=3):
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(generator.integers(0, 255, (56, 56, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def reconstruct(chain, tmp_path):
    def run(source, *more):
        return call("reconstruct", source, "--model", chain.run, "--out", tmp_path / "out", *more, "--json")

    return run


def test_an_empty_folder(reconstruct, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(reconstruct(tmp_path / "empty"), "is empty", "expected a folder of photos")
    called = call("manifest", "build", tmp_path / "empty", "--out", tmp_path / "m.parquet")
    refused(called, "is empty")
    assert not (tmp_path / "m.parquet").exists()


def test_no_such_folder(reconstruct, tmp_path):
    refused(reconstruct(tmp_path / "nowhere"), "nowhere does not exist", "Check the path")


def test_a_single_photo(reconstruct, tmp_path):
    refused(reconstruct(photos(tmp_path / "one", 1)), "Found only 1 photo", "expected at least 2")


def test_an_unreadable_file_is_left_out_and_listed(reconstruct, tmp_path):
    folder = photos(tmp_path / "photos")
    (folder / "broken.jpg").write_bytes(b"this is no photo")
    called = reconstruct(folder)
    assert called.code == 0
    assert len(called.data["views"]) == 3
    assert [entry["path"].rsplit("/", 1)[1] for entry in called.data["skipped"]] == ["broken.jpg"]
    info = json.loads((tmp_path / "out" / "info.json").read_text())["reconstruction"]
    assert "not a photo" in info["skipped"][0]["reason"]


def test_an_unreadable_file_is_named_to_people_too(chain, tmp_path):
    folder = photos(tmp_path / "photos")
    (folder / "broken.jpg").write_bytes(b"this is no photo")
    called = call("reconstruct", folder, "--model", chain.run, "--out", tmp_path / "out")
    assert "left out: broken.jpg" in called.out


def test_only_unreadable_files(reconstruct, tmp_path):
    folder = photos(tmp_path / "photos", 0)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"this is no photo")
    refused(reconstruct(folder), "0 photos of 2", "a.jpg", "b.jpg", "Export it as JPEG or PNG")


def test_no_such_recipe(chain, tmp_path):
    called = call("train", "demmo", "--cache", chain.cache, "--out", tmp_path / "run")
    refused(called, "no recipe 'demmo'", "paper, laptop, demo")


def test_no_such_model(reconstruct, chain, tmp_path):
    words = ("--out", tmp_path / "out", "--model")
    refused(call("reconstruct", chain.scene, *words, "distil3r"), "no model 'distil3r'", "distill3r", "place")
    refused(call("reconstruct", chain.scene, *words, tmp_path / "run9"), "no run folder or weight file", "run9")
    refused(call("reconstruct", chain.scene, *words, "distill3r"), "without weights", "--weights")
    refused(call("models", "show", "distil3r"), "no model 'distil3r'")
    refused(reconstruct(chain.scene, "--variant", "paper"), "brings its own", "--variant paper")


def test_wrong_weights_for_the_architecture(chain, tmp_path):
    torch.save({"model": {"enc.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    words = ("--model", "distill3r", "--out", tmp_path / "out", "--weights")
    refused(call("reconstruct", chain.scene, *words, tmp_path / "other.pth"), "other.pth", "missing", "left over")
    weights = save_fresh_student(tmp_path / "fresh.safetensors")
    called = call("reconstruct", chain.scene, *words, weights, "--variant", "demo")
    refused(called, "other settings than variant 'demo'", "Leave the variant out")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    refused(call("models", "show", tmp_path / "photo.png"), "photo.png")


def test_a_damaged_weight_file(chain, tmp_path):
    weights = save_fresh_student(tmp_path / "fresh.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    called = call("reconstruct", chain.scene, "--model", weights, "--out", tmp_path / "out")
    refused(called, "fresh.safetensors")


def test_a_cache_of_another_teacher_is_not_added_to(chain, tmp_path):
    shutil.copytree(chain.cache, tmp_path / "cache")
    before = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    refused(build_cache(chain.manifest, tmp_path / "cache"), "already holds a cache", "--resume")
    weights = save_fresh_student(tmp_path / "fresh.safetensors")
    called = build_cache(chain.manifest, tmp_path / "cache", "--resume", "--teacher", weights)
    refused(called, "teacher: the cache has 'ground-truth', this run 'distill3r'", "another output folder")
    assert len(called.err) < 1000  # not every setting of the two teachers
    refused(build_cache(chain.manifest, tmp_path / "cache", "--resume", "--noise", 1), "noise: the cache has 0.0")
    after = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    assert after == before


def test_a_cache_of_a_newer_version(chain, tmp_path):
    shutil.copytree(chain.cache, tmp_path / "cache")
    header = json.loads((tmp_path / "cache" / "cache.json").read_text())
    (tmp_path / "cache" / "cache.json").write_text(json.dumps({**header, "format": 99}))
    for called in (train(tmp_path / "cache", tmp_path / "run"), call("cache", "show", tmp_path / "cache")):
        refused(called, "cache format 99", "reads 1", "Update distill3d")


def test_a_run_is_not_resumed_with_another_cache_or_other_settings(chain, tmp_path):
    shutil.copytree(chain.run, tmp_path / "run")
    assert build_cache(chain.manifest, tmp_path / "noisy", "--noise", 1).code == 0
    refused(train(tmp_path / "noisy", tmp_path / "run", "--resume"), "Cannot resume", "cache")
    called = train(chain.cache, tmp_path / "run", "--resume", "--optim.lr", 1e-4)
    refused(called, "optim.lr was 0.003, now 0.0001", "initial_weights")
    refused(train(chain.cache, tmp_path / "run"), "already holds", "--resume")
    refused(train(chain.cache, tmp_path / "new", "--resume"), "new")


def test_a_full_disk_while_caching_keeps_what_was_written(chain, tmp_path, monkeypatch):
    from distill3d.cache.writer import CacheWriter

    honest, calls = CacheWriter.add_packed, []

    def add(self, *args, **more):
        if len(calls) == 2:
            with files.output_errors(self.path, 5_000_000):
                raise OSError(errno.ENOSPC, "No space left on device")
        calls.append(args)
        return honest(self, *args, **more)

    monkeypatch.setattr(CacheWriter, "add_packed", add)
    refused(build_cache(chain.manifest, tmp_path / "cache"), "the disk is full", "MB free", "choose another --out")
    monkeypatch.undo()
    resumed = build_cache(chain.manifest, tmp_path / "cache", "--resume")
    assert resumed.code == 0, resumed.err
    assert (resumed.data["existing"], resumed.data["written"]) == (2, 2)


@pytest.mark.parametrize("verb", ["manifest", "render", "train", "evaluate", "reconstruct"])
def test_a_full_disk_is_told_by_every_verb(chain, tmp_path, monkeypatch, verb):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    out = tmp_path / "out"
    called = {
        "manifest": lambda: call("manifest", "build", chain.scene, "--out", out),
        "render": lambda: call("render", "place", "--out", out, "--size", 28, 28, "--num-train", 2, "--num-test", 2),
        "train": lambda: train(chain.cache, out),
        "evaluate": lambda: evaluate(chain.run, chain.manifest, out),
        "reconstruct": lambda: call("reconstruct", chain.scene, "--model", chain.run, "--out", out),
    }[verb]()
    refused(called, "disk is full")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in left if path.name.endswith((".tmp", ".ply", ".parquet", ".safetensors"))]


def test_an_output_that_cannot_be_written_to(chain, tmp_path):
    (tmp_path / "file").write_text("in the way")
    below = tmp_path / "file" / "out"
    for called in (
        call("reconstruct", chain.scene, "--model", chain.run, "--out", below),
        call("manifest", "build", chain.scene, "--out", below),
        call("render", "place", "--out", below, "--size", 28, 28, "--num-train", 2, "--num-test", 2),
        build_cache(chain.manifest, below),
        train(chain.cache, below),
        evaluate(chain.run, chain.manifest, below),
    ):
        refused(called, tmp_path / "file", "Choose another")


def test_results_are_not_written_over_or_among_other_files(reconstruct, chain, tmp_path):
    assert reconstruct(chain.scene, "--max-views", 3).code == 0
    refused(reconstruct(chain.scene), "already holds results", "--overwrite")
    assert reconstruct(chain.scene, "--max-views", 2, "--overwrite").code == 0
    # No depth map of the earlier, larger run stands among the new ones.
    assert len(list((tmp_path / "out" / "depth").glob("*.png"))) == 2
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    refused(reconstruct(chain.scene, "--overwrite"), "thesis.tex", "Choose another --out")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "precious"


def test_predictions_of_another_model_are_not_scored_as_these(chain, tmp_path):
    shutil.copytree(chain.evaluation, tmp_path / "evaluation")
    weights = save_fresh_student(tmp_path / "fresh.safetensors")
    called = evaluate(weights, chain.manifest, tmp_path / "evaluation")
    refused(called, "other settings", "method.weights_sha256", "Choose another folder")


def test_frames_or_groups_that_are_not_there(chain, tmp_path):
    refused(evaluate(chain.run, chain.manifest, tmp_path / "a", "--split", "val"), "'val'", "'test': 6")
    called = evaluate(chain.run, chain.manifest, tmp_path / "b", "--train-split", "val")
    refused(called, "baselines", "--train-groups 0")
    refused(evaluate(chain.run, tmp_path / "no.parquet", tmp_path / "c"), "no manifest", "manifest build")


def test_photos_without_truth_cannot_be_scored_but_agreement_can(chain, tmp_path):
    folder = photos(tmp_path / "photos", 4)
    assert call("manifest", "build", folder, "--out", tmp_path / "m.parquet").code == 0
    words = ("--split", "None", "--policy", "contiguous", "--train-groups", 0, "--teacher", chain.run, "--views", 2)
    base = ("evaluate", "--model", chain.run, "--manifest", tmp_path / "m.parquet", "--out", tmp_path / "out", "--json")
    refused(call(*base, *words), "no depth, intrinsics, poses")
    agreed = call(*base, *words, "--reference", "teacher")
    assert agreed.code == 0, agreed.err
    assert agreed.data["protocol"].startswith("agreement")
    assert agreed.data["scores"]["teacher"]["rotation_deg"] < 0.1  # it agrees with itself
    assert np.isfinite(agreed.data["scores"]["student"]["depth_rel"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--long-side", 3), "long_side=3"),
        (("--percentile", 100), "percentile"),
        (("--window", 1), "--window is 1, expected 3"),
        (("--device", "warp"), "device is warp"),
        (("--formats", "obj"), "obj"),
        (("--max-views", "many"), "many"),
    ],
)
def test_settings_out_of_range(reconstruct, chain, words, told):
    refused(reconstruct(chain.scene, *words), told)


def test_a_place_of_fewer_than_no_photos_is_refused(tmp_path):
    for wrong in (("--num-train", -1), ("--num-train", 0, "--num-test", 0), ("--size", 0, 56)):
        refused(call("render", "place", "--out", tmp_path / "place", *wrong), "expected photos to make")
    assert not (tmp_path / "place").exists()
