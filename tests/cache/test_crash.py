"""A writer may die at any moment: what it had committed is there, nothing else is, and a resumed run ends the same."""

import dataclasses
import os
import random
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from distill3d.cache import CacheHeader, CacheReader, CacheWriter
from distill3d.errors import CacheError, OutputError

from .dying import run_and_kill, run_until_step
from .samples import make_sample

KEYS = tuple(f"s{number}" for number in range(3))
HEADER = CacheHeader(teacher="t", shard_bytes=9_000)  # two samples a shard
SAMPLES = {key: make_sample(number, views=2, height=5, width=7) for number, key in enumerate(KEYS)}


def write_rest(folder: Path, told: Callable[[str], object] | None = None, pause: float = 0) -> None:
    """Add every sample that is missing; tell when `add` has returned."""
    with CacheWriter(folder, header=HEADER, resume=True) as writer:
        for key in KEYS:
            if not writer.has(key):
                time.sleep(pause)
                writer.add(key, *SAMPLES[key])
                if told is not None:
                    told(key)


def run_and_die(folder: Path, step: int) -> tuple[bool, set[str]]:
    """Whether the child died at that step, and the keys whose `add` had returned."""
    reading, writing = os.pipe()
    tell = os.write  # not counted
    died = run_until_step(step, lambda: write_rest(folder, told=lambda key: tell(writing, key.encode())))
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        told = file.read().decode()
    return died, {key for key in KEYS if key in told}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "writer.lock"}


def committed(folder: Path) -> set[str]:
    """Keys that a reader sees; each of them must be whole."""
    try:
        reader = CacheReader(folder)
    except CacheError as error:
        assert "is not a teacher cache" in str(error)  # noqa: PT017
        return set()
    assert reader.verify() == []
    for sample in reader:
        assert (sample.views.images == SAMPLES[sample.key][0].images).all()
    return set(reader.keys())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "c"
    write_rest(folder)
    found = contents(folder)
    assert set(found) == {"cache.json", "index.parquet", "shard-00000.tar", "shard-00001.tar"}
    return found


def test_dying_between_any_two_steps_loses_only_the_sample_in_flight(tmp_path, uninterrupted):
    step = 0
    died = True
    while died:
        step += 1
        folder = tmp_path / f"c{step}"
        died, told = run_and_die(folder, step)
        seen = committed(folder)
        assert told <= seen
        assert len(seen) <= len(told) + 1  # the sample in flight may just have been committed
        write_rest(folder)
        assert contents(folder) == uninterrupted, f"after dying at step {step}"
    assert step > 25


def test_the_shard_is_on_the_disk_before_the_journal_speaks_of_it(tmp_path, monkeypatch):
    # A killed process cannot show this, only a power cut could: so the order of the calls is checked.
    calls = []

    def note(name):
        real = getattr(os, name)

        def call(file, *args):
            target = Path(f"/proc/self/fd/{file}").resolve().name
            calls.append((name, target))
            return real(file, *args)

        monkeypatch.setattr(os, name, call)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to tell which file a call is about")
    with CacheWriter(tmp_path / "c", header=HEADER) as writer:
        for name in ("write", "fsync"):
            note(name)
        writer.add(KEYS[0], *SAMPLES[KEYS[0]])
        monkeypatch.undo()
    shard, journal = "shard-00000.tar", "journal.jsonl"
    assert calls == [("write", shard), ("fsync", shard), ("write", journal), ("fsync", journal)]


def test_dying_while_resuming_is_no_different(tmp_path, uninterrupted):
    for first in (9, 17, 26):
        for second in (1, 4, 7, 12):
            folder = tmp_path / f"c{first}-{second}"
            run_and_die(folder, first)
            before = committed(folder)
            run_and_die(folder, second)
            assert before <= committed(folder)
            write_rest(folder)
            assert contents(folder) == uninterrupted, f"after dying at steps {first} and {second}"


def test_killing_at_random_moments_again_and_again_ends_in_the_same_cache(tmp_path, uninterrupted):
    rng = random.Random(0)
    folder = tmp_path / "c"
    kills, seen = 0, set()
    while kills < 15:
        if seen == set(KEYS):
            assert contents(folder) == uninterrupted or (folder / "journal.jsonl").exists()
            folder, seen = tmp_path / f"c{kills}", set()
        run_and_kill(rng.uniform(0, 0.06), partial(write_rest, folder, pause=0.004))
        kills += 1
        now = committed(folder)
        assert seen <= now
        seen = now
    write_rest(folder)
    assert contents(folder) == uninterrupted


def test_a_file_that_the_system_lets_grow_no_further_keeps_what_was_committed(tmp_path, uninterrupted):
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))  # a sample and a half
        try:
            write_rest(tmp_path / "c")
        except OutputError as error:
            os._exit(7 if "Everything committed is safe" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert committed(tmp_path / "c") == {KEYS[0]}
    assert not (tmp_path / "c" / "journal.jsonl").exists()  # the index had room enough
    write_rest(tmp_path / "c")
    assert contents(tmp_path / "c") == uninterrupted


def test_samples_committed_in_groups_survive_as_groups(tmp_path):
    header = dataclasses.replace(HEADER, shard_bytes=1 << 20)
    for size, expected in ((1, 3), (2, 2), (4, 0)):
        folder = tmp_path / f"c{size}"
        pid = os.fork()
        if pid == 0:
            writer = CacheWriter(folder, header=header, sync_every=size)
            for key in KEYS[:3]:
                writer.add(key, *SAMPLES[key])
            os._exit(9)
        os.waitpid(pid, 0)
        assert len(committed(folder)) == expected
