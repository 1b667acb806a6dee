import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill3d.errors import CheckpointError, ConfigError, OutputError
from distill3d.train.config import CheckpointConfig, OptimConfig
from distill3d.train.distil import train
from distill3d.train.logs import cut_metrics, read_metrics
from distill3d.train.resume import list_checkpoints, load_checkpoint, read_settings, save_checkpoint
from tests.train.helpers import make_cache, tiny_config
from tests.train.run_tiny import config_from

SCRIPT = Path(__file__).parent / "run_tiny.py"
# Everything that has a state: two optimisers, averaged weights, drawn views and colours.
SETTINGS = {
    "steps": 40,
    "optim": {"optimizer": "muon", "lr": 1e-3, "warmup_steps": 5, "ema_decay": 0.9},
    "data": {"min_views": 1, "color_jitter": 0.2},
    "checkpoint": {"every_steps": 7, "every_seconds": 0, "keep": 2},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


def start(cache, out, settings):
    words = [sys.executable, str(SCRIPT), str(cache), str(out), json.dumps(settings)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_step(out, step, process):
    for _ in range(6000):
        if len(read_metrics(out)) >= step or process.poll() is not None:
            return
        time.sleep(0.005)


def curve(out):
    return [
        {name: value for name, value in record.items() if name not in ("samples_per_s", "seconds")}
        for record in read_metrics(out)
    ]


def assert_same_run(one, two):
    assert curve(one) == curve(two)
    for name in ("student.safetensors", "student-last.safetensors"):
        ours, theirs = load_file(one / name), load_file(two / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_and_resumed_equals_one_that_never_stopped(cache, tmp_path):
    config = config_from(SETTINGS)
    train(config, cache, tmp_path / "straight")
    killed = start(cache, tmp_path / "killed", SETTINGS)
    wait_for_step(tmp_path / "killed", 17, killed)
    killed.kill()
    _, said = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, said
    assert 14 <= load_checkpoint(tmp_path / "killed").step < 40
    summary = train(config, cache, tmp_path / "killed", resume=tmp_path / "killed")
    assert summary.steps_now < 40
    assert_same_run(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_asked_to_stop_writes_a_checkpoint_of_its_last_step_first(cache, tmp_path, number):
    settings = {**SETTINGS, "steps": 5000, "workers": 1, "checkpoint": {"every_steps": 0, "every_seconds": 0}}
    process = start(cache, tmp_path / "run", settings)
    wait_for_step(tmp_path / "run", 3, process)
    os.killpg(process.pid, number)  # as a terminal does: the reading process is told too
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert load_checkpoint(tmp_path / "run").step == len(read_metrics(tmp_path / "run")) < 5000


def test_a_finished_run_resumed_is_left_as_it_is(cache, tmp_path):
    train(tiny_config(), cache, tmp_path)
    before = curve(tmp_path)
    assert train(tiny_config(), cache, tmp_path, resume=tmp_path).steps_now == 0
    assert curve(tmp_path) == before


def test_going_on_from_an_earlier_checkpoint_forgets_what_came_after_it(cache, tmp_path):
    config = tiny_config(checkpoint=CheckpointConfig(every_steps=2, every_seconds=0, keep=3))
    train(config, cache, tmp_path)
    before, (first, *_) = curve(tmp_path), list_checkpoints(tmp_path)
    train(config, cache, tmp_path, resume=first)
    assert curve(tmp_path) == before
    assert [record["step"] for record in before] == [1, 2, 3, 4, 5, 6]


def test_a_run_stopped_before_its_first_checkpoint_begins_again(cache, tmp_path):
    train(tiny_config(), cache, tmp_path / "straight")
    train(tiny_config(), cache, tmp_path / "stopped")
    for path in list_checkpoints(tmp_path / "stopped"):
        path.unlink()
    assert train(tiny_config(), cache, tmp_path / "stopped", resume=tmp_path / "stopped").steps_now == 6
    assert curve(tmp_path / "stopped") == curve(tmp_path / "straight")


def test_changed_settings_are_refused_and_named(cache, tmp_path):
    train(tiny_config(), cache, tmp_path)
    changed = tiny_config(batch=1, optim=OptimConfig(lr=2e-3, warmup_steps=2))
    with pytest.raises(ConfigError, match=r"batch was 2, now 1; optim.lr was 0.001, now 0.002"):
        train(changed, cache, tmp_path, resume=tmp_path)


def test_settings_that_decide_nothing_may_change(cache, tmp_path):
    train(tiny_config(), cache, tmp_path)
    changed = tiny_config(log_every=2, head_chunk=1, checkpoint=CheckpointConfig(keep=1))
    assert train(changed, cache, tmp_path, resume=tmp_path).steps_now == 0


def test_more_steps_are_allowed_only_where_the_rate_does_not_depend_on_their_number(cache, tmp_path):
    constant = tiny_config(optim=OptimConfig(lr=1e-3, min_lr_ratio=1.0))
    train(constant, cache, tmp_path / "constant")
    longer = replace(constant, steps=9)
    assert train(longer, cache, tmp_path / "constant", resume=tmp_path / "constant").steps_now == 3
    train(longer, cache, tmp_path / "straight")
    assert curve(tmp_path / "constant") == curve(tmp_path / "straight")
    train(tiny_config(), cache, tmp_path / "cosine")
    with pytest.raises(ConfigError, match="steps was 6, now 9"):
        train(tiny_config(steps=9), cache, tmp_path / "cosine", resume=tmp_path / "cosine")


def test_another_cache_is_refused(cache, tmp_path):
    train(tiny_config(), cache, tmp_path / "run")
    other = make_cache(tmp_path / "other", samples=7)
    with pytest.raises(ConfigError, match=r"another cache or other weights.*samples was 6, now 7"):
        train(tiny_config(), other, tmp_path / "run", resume=tmp_path / "run")


def test_a_checkpoint_that_cannot_be_read_is_refused_without_running_it(cache, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoints"):
        load_checkpoint(tmp_path)
    broken = tmp_path / "checkpoints" / "step-0000001.pt"
    broken.parent.mkdir()
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"step-0000001.pt cannot be read.*Remove it"):
        load_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_checkpoint_before_it_in_place(cache, tmp_path, monkeypatch):
    config = tiny_config(checkpoint=CheckpointConfig(every_steps=2, every_seconds=0, keep=1))
    train(config, cache, tmp_path)
    state = load_checkpoint(tmp_path)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        save_checkpoint(tmp_path, replace(state, step=8), keep=1)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path).step == 6
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000006.pt"]


def test_the_run_folder_gives_its_settings_back(cache, tmp_path):
    config = config_from({**SETTINGS, "steps": 1, "optim": {"betas": (0.8, 0.9)}})
    train(config, cache, tmp_path)
    assert read_settings(tmp_path) == config


def test_metrics_are_cut_at_a_step_and_lose_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 6)) + '{"step": 6, "lo')
    cut_metrics(path, 3)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]


def test_a_finished_run_is_left_as_it_is(cache, tmp_path):
    config = tiny_config(steps=3)
    first = train(config, cache, tmp_path / "run")
    before = {
        name: (tmp_path / "run" / name).read_bytes()
        for name in ("student.safetensors", "metrics.jsonl", "summary.json")
    }
    again = train(config, cache, tmp_path / "run", resume=tmp_path / "run")
    assert again == replace(first, steps_now=0)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before
