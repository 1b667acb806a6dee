"""A pass may be killed at any moment, and the disk may fill up: what was committed stays; resuming ends the same."""

import errno
import os
import random
import threading
import time
from functools import partial

import pytest

from distill3d.cache import CacheReader
from distill3d.cache.format import read_failures
from distill3d.data.sampling import ViewGroup, contiguous
from distill3d.errors import CacheError, OutputError
from distill3d.teachers.run import pipelined, run_teacher
from tests.cache.dying import run_and_kill, run_until_step
from tests.teachers.run.fake import FIT, Fake, contents

NUM_GROUPS = 3
ABSENT = 99
"""A frame that no scene has: its group always fails."""


class Unhurried(Fake):
    """Takes a moment for each question."""

    def predict(self, views):
        time.sleep(0.01)
        return super().predict(views)


def go_on(folder, manifest, batch_size=1, teacher=Fake, num_groups=NUM_GROUPS):
    groups = contiguous(manifest, 2)[:num_groups]
    groups.insert(1, ViewGroup(groups[0].scene, (groups[0].frames[0], ABSENT)))
    engine = partial(pipelined, threads=2)
    return run_teacher(
        teacher(), manifest, groups, folder, fit=FIT, canvas=(14, 28), resume=True, batch_size=batch_size, engine=engine
    )


def committed(folder):
    """Keys that a reader sees, every one of them sound."""
    try:
        reader = CacheReader(folder)
    except CacheError as error:
        assert "is not a teacher cache" in str(error)  # noqa: PT017
        return set()
    assert reader.verify() == []
    return set(reader.keys())


@pytest.fixture
def whole(tmp_path, manifest):
    go_on(tmp_path / "whole", manifest)
    return contents(tmp_path / "whole")


def test_a_pass_that_dies_between_any_two_steps_goes_on_to_the_same_bytes(tmp_path, manifest):
    go_on(tmp_path / "whole", manifest, num_groups=2)
    whole = contents(tmp_path / "whole")
    step, died, before = 0, True, set()
    while died:
        step += 1
        folder = tmp_path / f"c{step}"
        died = run_until_step(step, partial(go_on, folder, manifest, num_groups=2))
        seen = committed(folder)
        assert before <= seen  # one step more never means a sample less
        before = seen
        done = go_on(folder, manifest, num_groups=2)
        assert done.num_existing == len(seen)
        assert contents(folder) == whole, f"after dying at step {step}"
        assert len(read_failures(folder)) == 1
    assert step > 20


def test_a_pass_that_is_killed_again_and_again_loses_nothing_that_it_had(tmp_path, manifest):
    go_on(tmp_path / "whole", manifest, batch_size=2)
    rng = random.Random(0)
    folder, kills, seen = tmp_path / "c", 0, set()
    while kills < 20:
        work = partial(go_on, folder, manifest, batch_size=2, teacher=Unhurried)
        if not run_and_kill(rng.uniform(0.02, 0.12), work):
            assert contents(folder) == contents(tmp_path / "whole")
            folder, seen = tmp_path / f"c{kills}", set()
            continue
        kills += 1
        assert seen <= (seen := committed(folder))
    go_on(folder, manifest, batch_size=2)
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize(("call", "room"), [("write", 5), ("fsync", 7)])
def test_a_full_disk_stops_the_pass_with_the_reason(tmp_path, manifest, whole, monkeypatch, call, room):
    honest, left = getattr(os, call), iter(range(room))

    def refuse(*args):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(*args)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OutputError, match="the disk is full"):
        go_on(tmp_path / "c", manifest)
    monkeypatch.undo()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("decode", "encode"))]
    kept = committed(tmp_path / "c")
    assert 0 < len(kept) < NUM_GROUPS
    assert go_on(tmp_path / "c", manifest).num_existing == len(kept)
    assert contents(tmp_path / "c") == whole
