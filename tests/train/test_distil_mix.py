"""Training on several caches."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill3d.checkpoints import load_saved
from distill3d.errors import ConfigError
from distill3d.train.config import ValidationConfig
from distill3d.train.distil import DistillJob, train
from distill3d.train.logs import read_metrics
from tests.cli.calls import TRAIN_OPTIONS, call, succeed
from tests.train.helpers import make_cache, run_two_processes, tiny_config
from tests.train.run_tiny import config_from

SCRIPT = Path(__file__).parent / "run_tiny.py"
WATCHED = ValidationConfig(every_steps=4, held_out=0.25, pictures=0)


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caches")
    # Their groups have the same keys: two teachers looked at the same photos.
    small = make_cache(folder / "small", samples=4, seed=1, size=(28, 42))
    return [make_cache(folder / "large", samples=12), small]


def losses(out):
    return [record["loss"] for record in read_metrics(out) if record["kind"] == "train"]


def sources(job, count):
    return Counter(Path(job.batches[number].source).name for number in range(count))


def test_without_weights_an_epoch_uses_every_sample_of_each_cache_once(caches):
    job = DistillJob(tiny_config(), caches)
    assert sources(job, len(job.batches)) == {"large": 6, "small": 2}
    keys = Counter(key for number in range(len(job.batches)) for key in job.batches[number].keys)
    assert keys == {f"wall/{number:03d}": 2 if number < 4 else 1 for number in range(12)}


def test_weights_decide_how_often_each_cache_has_its_turn(caches):
    job = DistillJob(tiny_config(mix=(1.0, 3.0)), caches)
    assert len(job.batches) == 1000
    assert [job.batches[number].source == str(caches[1]) for number in range(1000)].count(True) == 750


def test_one_cache_gives_the_same_samples_whether_alone_or_as_a_mix_of_one(caches):
    alone, mixed = DistillJob(tiny_config(), caches[0]), DistillJob(tiny_config(mix=(7.0,)), caches[:1])
    assert alone.identity == mixed.identity
    for number in (0, 5, 6, 17):
        one, other = alone.batches[number].batch, mixed.batches[number].batch
        assert one.keys == other.keys
        assert torch.equal(one.views.images, other.views.images)


def test_a_group_that_is_watched_in_one_cache_is_trained_on_in_none(caches):
    job = DistillJob(tiny_config(validation=WATCHED), caches)
    watched = {job._watched[number].keys[0] for number in range(len(job._watched))}
    trained = {key for number in range(len(job.batches)) for key in job.batches[number].keys}
    assert watched
    assert not watched & trained


def test_a_student_of_several_caches_names_them_all(caches, tmp_path):
    done = train(tiny_config(steps=4, mix=(1.0, 1.0), validation=WATCHED), caches, tmp_path / "run")
    _, info = load_saved(done.weights)
    assert info.meta["licence"] == "CC0"
    assert info.meta["teacher"] == "wall"
    assert [header["seed"] for header in (info.meta["cache"], *info.meta["more_caches"])] == [0, 1]
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["settings"]["mix"] == [1.0, 1.0]
    assert [cache["path"] for cache in (about["cache"], *about["more_caches"])] == list(map(str, caches))
    assert done.validation["loss"] > 0


def test_a_mix_that_does_not_fit_the_caches_is_refused(caches):
    with pytest.raises(ConfigError, match="one weight for each cache; caches: 2, weights: 3"):
        DistillJob(tiny_config(mix=(1.0, 2.0, 3.0)), caches)
    with pytest.raises(ConfigError, match="nothing to learn from"):
        DistillJob(tiny_config(), [])


def test_another_mix_or_other_caches_are_refused_on_resume(caches, tmp_path):
    train(tiny_config(steps=2, mix=(1.0, 3.0)), caches, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"mix.* was \[1.0, 3.0\], now \[3.0, 1.0\]"):
        train(tiny_config(steps=2, mix=(3.0, 1.0)), caches, tmp_path / "run", resume=tmp_path / "run")
    with pytest.raises(ConfigError, match="another cache or other weights: cache 1 was"):
        train(tiny_config(steps=2, mix=(1.0, 3.0)), caches[::-1], tmp_path / "run", resume=tmp_path / "run")


@pytest.mark.slow
def test_a_mixed_run_stopped_on_one_process_goes_on_on_two(caches, tmp_path):
    settings = {"mix": [2.0, 1.0], "optim": {"lr": 1e-3, "warmup_steps": 1, "min_lr_ratio": 1.0}}
    straight = {**settings, "steps": 8, "accumulation": 2}
    train(config_from({**straight, "mix": (2.0, 1.0)}), caches, tmp_path / "straight")
    train(config_from({**straight, "mix": (2.0, 1.0), "steps": 4}), caches, tmp_path / "run")
    words = (",".join(map(str, caches)), tmp_path / "run", json.dumps({**settings, "steps": 8}))
    run_two_processes(SCRIPT, *words)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "straight"), rel=1e-4)
    ours, theirs = (load_file(tmp_path / name / "student.safetensors") for name in ("run", "straight"))
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-4) for key in theirs)


def test_the_command_takes_several_caches_and_their_shares(caches, tmp_path):
    how = (*TRAIN_OPTIONS, "--steps", 2, "--device", "cpu", "--out", tmp_path / "run")
    said = succeed("train", "demo", "--cache", *caches, "--mix", 3, 1, *how)
    assert said["steps"] == 2
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["settings"]["mix"] == [3.0, 1.0]
    assert len(about["more_caches"]) == 1
    wrong = call("train", "demo", "--cache", *caches, "--mix", 3, *how[:-1], tmp_path / "other")
    assert wrong.code == 2
    assert "one weight for each cache; caches: 2, weights: 1" in wrong.err
