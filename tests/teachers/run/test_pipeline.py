"""The pipeline overlaps what the plain engine does one by one, and nothing else is different."""

import threading
import time

import pytest
import torch

from distill3d.cache.codec import ExactCodec
from distill3d.data.sampling import contiguous
from distill3d.teachers.run import making, run_teacher
from distill3d.teachers.run.making import LabelMaker, Recipe, make_batches, one_by_one
from distill3d.teachers.run.pipeline import Pipeline, pipelined
from tests.teachers.run.fake import FIT, Fake, contents

WAIT = 20.0
"""Seconds until a test gives up; nothing waits that long when all is well."""


def stage_threads():
    return [t.name for t in threading.enumerate() if t.name.startswith(("decode", "teacher", "encode"))]


def make_maker(manifest, teacher=None):
    recipe = Recipe(fit=FIT, codec=ExactCodec())
    maker = LabelMaker(teacher or Fake(), manifest, recipe)
    return maker, list(make_batches(manifest, contiguous(manifest, 2), recipe, 1))


@pytest.mark.parametrize(("threads", "batch_size"), [(1, 1), (3, 1), (2, 3)])
def test_the_bytes_are_those_of_the_plain_engine(tmp_path, manifest, threads, batch_size, monkeypatch):
    groups = contiguous(manifest, 2)
    options = {"fit": FIT, "batch_size": batch_size}
    run_teacher(Fake(), manifest, groups, tmp_path / "plain", engine=one_by_one, **options)
    honest, pause = making.pack_sample, torch.Generator().manual_seed(0)

    def dawdle(*args, **more):
        time.sleep(float(torch.rand((), generator=pause)) / 100)  # results are ready in another order
        return honest(*args, **more)

    monkeypatch.setattr(making, "pack_sample", dawdle)
    run_teacher(
        Fake(), manifest, groups, tmp_path / "c", engine=lambda *job: pipelined(*job, threads=threads), **options
    )
    assert contents(tmp_path / "c") == contents(tmp_path / "plain")
    assert stage_threads() == []


def test_the_teacher_goes_on_while_others_decode_and_encode(manifest, monkeypatch):
    asked = threading.Semaphore(0)
    encoding, names = threading.Event(), {"load": set(), "ask": set(), "pack": set()}
    maker, batches = make_maker(manifest)
    assert len(batches) > 4

    def note(step):
        honest = getattr(maker, step)

        def noted(*args):
            names[step].add(threading.current_thread().name.split("_")[0])
            if step == "pack":
                encoding.set()
                assert asked.acquire(timeout=WAIT)  # the first encoding ends only when two more were asked about
                assert asked.acquire(timeout=WAIT)
                asked.release(2)
            found = honest(*args)
            if step == "ask" and encoding.is_set():
                asked.release()
            return found

        monkeypatch.setattr(maker, step, noted)

    for step in names:
        note(step)
    slow = maker.teacher.predict

    def ask_slowly(views):
        if len(maker.teacher.calls) == 1:
            assert encoding.wait(timeout=WAIT)  # the second question waits until the first answer is being encoded
        return slow(views)

    monkeypatch.setattr(maker.teacher, "predict", ask_slowly)
    made = [item for batch in pipelined(maker, batches, threads=2) for item in batch]
    assert [item.group for item in made] == [group for batch in batches for group in batch.groups]
    assert names == {"load": {"decode"}, "ask": {"teacher"}, "pack": {"encode"}}


def test_only_so_many_batches_are_under_way(manifest):
    maker, batches = make_maker(manifest)
    taken = []

    def endless():
        for turn in range(1000):
            taken.append(turn)
            yield batches[turn % len(batches)]

    results = pipelined(maker, endless(), threads=1)
    for done in range(1, 6):
        next(results)
        assert len(taken) <= done + Pipeline(maker, 1).capacity
    results.close()
    assert stage_threads() == []
    assert len(maker.teacher.calls) <= len(taken) < 10


@pytest.mark.parametrize("step", ["load", "ask", "pack"])
def test_an_error_of_any_step_arrives_after_what_was_made_before_it(manifest, monkeypatch, step):
    maker, batches = make_maker(manifest)
    honest, count = getattr(maker, step), iter(range(100))

    def fail(*args):
        if next(count) == 2:
            raise ZeroDivisionError(step)
        return honest(*args)

    monkeypatch.setattr(maker, step, fail)
    made = []
    with pytest.raises(ZeroDivisionError, match=step):
        made.extend(pipelined(maker, batches, threads=1))
    assert len(made) == 2
    assert stage_threads() == []


def test_a_video_is_decoded_by_one_thread_in_order(manifest, monkeypatch):
    maker, batches = make_maker(manifest)
    maker.has_videos = True
    order, honest = [], maker.load

    def load(batch):
        order.append((threading.current_thread().name, batch))
        return honest(batch)

    monkeypatch.setattr(maker, "load", load)
    list(pipelined(maker, batches, threads=4))
    assert [batch for _, batch in order] == batches
    assert len({name for name, _ in order}) == 1
