import logging

import pytest

from distill3d.data.sampling import contiguous
from distill3d.errors import DataError
from distill3d.teachers.run import Estimate, estimate, estimate_run, job, run_teacher
from tests.teachers.run.fake import FIT, Fake


def test_the_estimate_is_made_of_real_samples(manifest, monkeypatch):
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)
    groups = contiguous(manifest, 2)
    teacher = Fake()
    found = estimate_run(teacher, manifest, groups, fit=FIT)
    assert found.num_views == 2 * len(groups)
    assert 4 <= found.measured_views // 2 <= len(groups)
    assert len(teacher.calls) >= 4
    assert found.seconds == pytest.approx(found.num_views / found.views_per_second)
    half = estimate_run(teacher, manifest, groups, fit=FIT, existing=frozenset(g.key for g in groups[1:]))
    assert (half.num_groups, half.num_views) == (1, 2)
    assert half.bytes_per_view == pytest.approx(found.bytes_per_view, rel=0.2)


def test_the_estimate_of_bytes_comes_true(tmp_path, manifest):
    groups = contiguous(manifest, 2)
    found = estimate_run(Fake(), manifest, groups, fit=FIT)
    done = run_teacher(Fake(), manifest, groups, tmp_path / "c", fit=FIT)
    assert found.measured_views == done.num_views  # so few that all were measured
    summaries = done.num_bytes - found.num_bytes  # `sample.json`, one a group
    assert 0 < summaries < 1000 * len(groups)


def test_an_estimate_of_nothing_says_why(manifest):
    groups = contiguous(manifest, 2)
    with pytest.raises(DataError, match=r"in the cache already"):
        estimate_run(Fake(), manifest, groups, fit=FIT, existing=frozenset(group.key for group in groups))

    class Blind(Fake):
        def predict(self, views):
            raise DataError("too dark")

    with pytest.raises(DataError, match=r"not one of the first \d+ view groups could be made.*too dark"):
        estimate_run(Blind(), manifest, groups, fit=FIT)


def test_a_run_tells_its_estimate_and_that_the_disk_is_too_small(tmp_path, manifest, monkeypatch, caplog):
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(job.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 3})())
    with caplog.at_level(logging.INFO, logger="distill3d"):
        run_teacher(Fake(), manifest, contiguous(manifest, 2), tmp_path / "c", fit=FIT)
    (line,) = [record.message for record in caplog.records if record.message.startswith("estimate")]
    assert "views in" in line
    assert "GB at" in line
    assert "has 3e-06 MB free" in caplog.text


def test_words_and_numbers_agree():
    found = Estimate(num_groups=5, num_views=40, measured_views=8, views_per_second=0.01, bytes_per_view=2e5)
    assert found.summary()["hours"] == pytest.approx(4000 / 3600, abs=1e-4)
    assert found.summary()["gigabytes"] == 0.008
    assert found.words() == (
        "40 views in 5 groups take 1:06:40 (1.11 h) at 0.01 views/s and 0.008 GB at 0.2 MB/view, judged by 8 views"
    )


def test_a_hopeless_run_stops_early(tmp_path, manifest, monkeypatch):
    monkeypatch.setattr(job, "HOPELESS", 3)

    class Broken(Fake):
        def predict(self, views):
            self.calls.append(0)
            raise DataError("no depth")

    groups = contiguous(manifest, 2)
    teacher = Broken()
    with pytest.raises(DataError, match=r"not one of the first 3 view groups could be made.*no depth"):
        run_teacher(teacher, manifest, groups, tmp_path / "c", fit=FIT)
    run_teacher(Fake(), manifest, groups[:1], tmp_path / "d", fit=FIT)
    with pytest.raises(DataError, match="the first 3"):
        run_teacher(Broken(), manifest, groups, tmp_path / "d", fit=FIT, resume=True)
