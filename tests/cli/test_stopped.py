"""Ctrl-C at every stage: code 130, nothing half-written is taken for whole, and a further call goes on."""

import filecmp
import shutil

import numpy as np
import pytest

from distill3d.cache import CacheReader
from tests.cli.calls import build_cache, call, evaluate, train


def stop_after(monkeypatch, target, name, calls, *, before=True):
    """Raise KeyboardInterrupt in call number `calls` of a function, before or after it did its work."""
    honest, count = getattr(target, name), [0]

    def wrapped(*args, **more):
        count[0] += 1
        if count[0] > calls and before:
            raise KeyboardInterrupt
        result = honest(*args, **more)
        if count[0] > calls:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(target, name, wrapped)


def stopped(called):
    assert called.code == 130, called.err
    assert "Stopped" in called.err
    assert "Traceback" not in called.err


def same_tree(first, second):
    compared = filecmp.dircmp(first, second)
    assert not compared.left_only
    assert not compared.right_only
    return all(
        filecmp.cmpfiles(first, second, compared.common_files, shallow=False)[index] == [] for index in (1, 2)
    ) and (all(same_tree(first / name, second / name) for name in compared.common_dirs))


def test_rendering_starts_again_and_gives_the_same_scene(tmp_path, monkeypatch):
    from distill3d.data.datasets import annotated

    words = ("--size", 28, 28, "--num-train", 6, "--num-test", 3)
    stop_after(monkeypatch, annotated, "atomic_write_bytes", 5)
    stopped(call("render", "place", "--out", tmp_path / "place", *words))
    assert not (tmp_path / "place" / "scene.json").exists()  # half a scene is no scene
    monkeypatch.undo()
    assert call("render", "place", "--out", tmp_path / "place", *words).code == 0
    assert call("render", "place", "--out", tmp_path / "whole", *words).code == 0
    assert same_tree(tmp_path / "place", tmp_path / "whole")


def test_a_manifest_is_whole_or_absent(chain, tmp_path, monkeypatch):
    from distill3d.data.datasets import annotated

    stop_after(monkeypatch, annotated, "matrix", 7)
    stopped(call("manifest", "build", chain.scene, "--out", tmp_path / "m.parquet"))
    assert list(tmp_path.iterdir()) == []


def test_a_cache_goes_on_where_it_stopped_and_ends_with_the_same_bytes(chain, tmp_path, monkeypatch):
    from distill3d.teachers.ground_truth import GroundTruth

    stop_after(monkeypatch, GroundTruth, "predict", 2)
    stopped(build_cache(chain.manifest, tmp_path / "cache"))
    assert len(CacheReader(tmp_path / "cache")) == 2
    assert CacheReader(tmp_path / "cache").verify() == []
    monkeypatch.undo()
    resumed = build_cache(chain.manifest, tmp_path / "cache", "--resume")
    assert resumed.code == 0, resumed.err
    assert (resumed.data["existing"], resumed.data["written"]) == (2, 2)
    ours, theirs = CacheReader(tmp_path / "cache"), CacheReader(chain.cache)
    assert sorted(ours.keys()) == sorted(theirs.keys())
    for key in theirs.keys():  # noqa: SIM118  (a reader is no mapping)
        first, second = ours.load(key).prediction.pointmap_world, theirs.load(key).prediction.pointmap_world
        assert np.array_equal(first.numpy(), second.numpy())


def test_training_resumes_to_the_same_weights(chain, tmp_path, monkeypatch):
    from distill3d.train import distil

    # Ctrl-C in the middle of a step: what the last checkpoint holds is what is left.
    each_step = ("--checkpoint.every-steps", 1)
    stop_after(monkeypatch, distil, "distill_loss", 2)
    stopped(train(chain.cache, tmp_path / "run", *each_step))
    assert not (tmp_path / "run" / "student.safetensors").exists()
    called = call("reconstruct", chain.scene, "--model", tmp_path / "run", "--out", tmp_path / "points")
    assert called.code == 2  # half a run is no model
    assert "no finished weights" in called.err
    assert "--resume" in called.err
    monkeypatch.undo()
    resumed = train(chain.cache, tmp_path / "run", *each_step, "--resume")
    assert resumed.code == 0, resumed.err
    assert resumed.data["steps_now"] == 2
    first, second = (
        call("models", "show", folder).out.split("sha256 ")[1].split()[0] for folder in (tmp_path / "run", chain.run)
    )
    assert first == second


def test_an_evaluation_keeps_what_was_predicted(chain, tmp_path, monkeypatch):
    from distill3d.eval import heldout, predictions

    out = tmp_path / "evaluation"
    stop_after(monkeypatch, predictions, "save_prediction", 4, before=False)
    stopped(evaluate(chain.run, chain.manifest, out))
    assert not (out / "scores.json").exists()
    assert len(list(out.rglob("*-*.safetensors"))) == 5
    monkeypatch.undo()
    stop_after(monkeypatch, heldout, "score_group", 1)
    stopped(evaluate(chain.run, chain.manifest, out))
    assert not (out / "scores.json").exists()
    monkeypatch.undo()
    stop_after(monkeypatch, predictions, "save_prediction", 0)  # everything is predicted: none is made again
    assert evaluate(chain.run, chain.manifest, out).code == 0
    assert (out / "scores.json").read_bytes() == (chain.evaluation / "scores.json").read_bytes()


@pytest.mark.parametrize("stage", ["model", "ply", "cameras", "moving"])
def test_a_stopped_reconstruction_leaves_nothing_and_can_be_called_again(chain, tmp_path, monkeypatch, stage):
    from distill3d.export import folder, staged
    from distill3d.infer import reconstruct

    target, name = {
        "model": (reconstruct, "complete_with_info"),
        "ply": (folder, "write_ply"),
        "cameras": (folder, "write_cameras"),
        "moving": (staged, "_remove"),
    }[stage]
    words = ("reconstruct", chain.scene, "--model", chain.run, "--out", tmp_path / "out", "--max-views", 3)
    stop_after(monkeypatch, target, name, 0, before=stage == "model")
    stopped(call(*words))
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    assert call(*words).code == 0
    assert (tmp_path / "out" / "info.json").exists()


def test_what_a_killed_reconstruction_left_does_not_hinder_the_next(chain, tmp_path):
    shutil.copytree(chain.reconstruction, tmp_path / "out" / ".unfinished")
    words = ("--out", tmp_path / "out", "--max-views", 3)
    assert call("reconstruct", chain.scene, "--model", chain.run, *words).code == 0
    assert not (tmp_path / "out" / ".unfinished").exists()
    assert len(list((tmp_path / "out" / "depth").glob("*.png"))) == 3
