"""Many machines give the cache of one, whoever dies or joins meanwhile."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill3d.cache import CacheReader
from distill3d.data.sampling import contiguous, random_groups
from distill3d.errors import ConfigError
from distill3d.teachers.run import ray as engine_module
from distill3d.teachers.run import run_teacher
from distill3d.teachers.run.pipeline import Pipeline
from distill3d.teachers.run.ray import RayEngine
from tests.teachers.run.fake import FIT, Fake, contents
from tests.teachers.run.fake_ray import Death, FakeRay

ROOT = Path(__file__).resolve().parents[3]


def test_a_cluster_that_loses_a_node_and_gains_one_writes_the_cache_of_one_machine(tmp_path, manifest):
    pytest.importorskip("ray")
    manifest.save(tmp_path / "m.parquet")
    command = [sys.executable, "-m", "tests.teachers.run.cluster", tmp_path / "m.parquet", tmp_path]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    groups = random_groups(manifest, 2, count=len(CacheReader(tmp_path / "c")))
    assert len(groups) > 20
    run_teacher(Fake(), manifest, groups, tmp_path / "one", fit=FIT)
    assert contents(tmp_path / "c") == contents(tmp_path / "one")
    said = json.loads((tmp_path / "told.json").read_text())
    losses = [line for line in said if line.startswith("a worker is lost")]
    assert losses
    assert "its 0 batches" not in losses[0]
    steps = [line for line in said if line == "2 workers" or line in losses[:1]]
    assert steps[:3] == ["2 workers", losses[0], "2 workers"]  # both at work, one killed, one more in its place


class Deadly(Fake):
    """Kills its process, or raises, at the questions so numbered (of all workers together)."""

    asked = 0

    def __init__(self, deaths=(), error_at=None):
        super().__init__()
        self.deaths, self.error_at = deaths, error_at

    def predict(self, views):
        number = Deadly.asked
        Deadly.asked += 1
        if number in self.deaths:
            raise Death
        if number == self.error_at:
            raise MemoryError("something that nobody foresaw")
        return super().predict(views)


@pytest.fixture
def run_fake(manifest, monkeypatch):
    """Run a pass of eight groups on a fake cluster."""
    monkeypatch.setattr(engine_module, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(engine_module, "Pipeline", PlainPipeline)
    Deadly.asked = 0
    groups = random_groups(manifest, 2, count=8)

    def run(ray, folder, **teacher):
        monkeypatch.setattr(engine_module, "_import_ray", lambda: ray)
        ray.is_initialized = lambda: True
        run_teacher(Fake(), manifest, groups, folder, fit=FIT, engine=RayEngine(build=lambda: Deadly(**teacher)))
        return [group.key for group in groups]

    return run


class PlainPipeline:
    """Without threads."""

    capacity_of = staticmethod(Pipeline.capacity_of)

    def __init__(self, maker, threads):
        self._maker = maker

    def submit(self, batch):
        made = self._maker.make(batch)
        return SimpleNamespace(result=lambda: made)


def test_work_is_shared_and_comes_back_in_order(run_fake, tmp_path, manifest):
    ray = FakeRay(1, 2, 0)
    keys = run_fake(ray, tmp_path / "c")
    assert len(ray.actors) == 3
    assert not any(actor.alive for actor in ray.actors)
    run_teacher(Fake(), manifest, random_groups(manifest, 2, count=8), tmp_path / "one", fit=FIT)
    assert contents(tmp_path / "c") == contents(tmp_path / "one")
    assert len(keys) == 8


def test_what_dead_workers_had_is_made_by_others(run_fake, tmp_path, manifest, caplog):
    caplog.set_level(logging.WARNING, logger="distill3d")
    ray = FakeRay(1, 1)
    run_fake(ray, tmp_path / "c", deaths=(2, 5))
    assert len(ray.actors) == 4
    assert caplog.text.count("a worker is lost") == 2
    run_teacher(Fake(), manifest, random_groups(manifest, 2, count=8), tmp_path / "one", fit=FIT)
    assert contents(tmp_path / "c") == contents(tmp_path / "one")


def test_a_batch_that_kills_its_workers_is_left_out(run_fake, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "MOST_DEATHS", 2)
    keys = run_fake(FakeRay(1), tmp_path / "c", deaths=(3, 4))
    reader = CacheReader(tmp_path / "c")
    # What stood beside it in the dead workers is given up as well, but never silently.
    failed = {item["key"]: item["reason"] for item in reader.failures()}
    assert keys[3] in failed
    assert set(failed.values()) == {"2 workers died while they had it"}
    assert set(reader.keys()) == set(keys) - set(failed)
    assert keys[:3] == [key for key in keys[:3] if key in reader]


def test_an_error_of_a_worker_ends_the_run_with_its_words(run_fake, tmp_path):
    with pytest.raises(RuntimeError, match="a worker failed: MemoryError: something that nobody foresaw"):
        run_fake(FakeRay(1), tmp_path / "c", error_at=3)
    assert len(CacheReader(tmp_path / "c")) == 3


def test_workers_that_cannot_start_end_the_run(run_fake, tmp_path, manifest, monkeypatch):
    class Stillborn(Fake):
        def __init__(self):
            raise Death

    class Wrong(Fake):
        weights_hash = "9999"

    def run(build, ray):
        monkeypatch.setattr(engine_module, "_import_ray", lambda: ray)
        ray.is_initialized = lambda: True
        engine = RayEngine(build=build)
        run_teacher(Fake(), manifest, contiguous(manifest, 2), tmp_path / "d", fit=FIT, engine=engine)

    with pytest.raises(ConfigError, match="5 workers died while they started: the actor died"):
        run(Stillborn, FakeRay(1))
    with pytest.raises(ConfigError, match=r"weights_hash '9999', expected '0123'"):
        run(Wrong, FakeRay(1))
    with pytest.raises(ConfigError, match=r"no machine of the Ray cluster has room.*\{'CPU': 0\}"):
        run(Fake, FakeRay(0))


def test_without_ray_the_error_names_the_extra(tmp_path, manifest, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    groups = random_groups(manifest, 2, count=2)
    with pytest.raises(ConfigError, match=r"pip install 'distill3d\[ray\]'"):
        run_teacher(Fake(), manifest, groups, tmp_path / "c", fit=FIT, engine=RayEngine(build=Fake))
