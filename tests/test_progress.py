import logging

import pytest

from distill3d import progress
from distill3d.progress import ProgressBar, clock, track


@pytest.fixture
def now(monkeypatch):
    """A clock that the test turns by hand."""
    state = {"now": 100.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: state["now"])
    monkeypatch.delenv("FORCE_PROGRESS", raising=False)
    return state


def test_quick_work_shows_nothing(now, caplog, capfd):
    caplog.set_level(logging.INFO, "distill3d")
    assert list(track([1, 2, 3], "reading")) == [1, 2, 3]
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_a_line_is_logged_every_ten_seconds(now, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "distill3d")
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    for _ in track(range(30), "reading", unit="images"):
        now["now"] += 1.0
    lines = [record.message for record in caplog.records]
    assert lines == [
        "reading 10/30 · 1 images/s · 20 s left",
        "reading 20/30 · 1 images/s · 10 s left",
        "reading 30/30 · 1 images/s",
    ]


def test_a_bar_is_drawn_on_stderr_when_asked_for(now, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_PROGRESS", "1")
    with ProgressBar("training", total=4) as bar:
        for step in range(4):
            now["now"] += 1.0
            bar.advance(note=f"loss {step}")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "training" in shown.err
    assert "4/4" in shown.err
    assert "loss 3" in shown.err


def test_a_bar_within_a_bar_keeps_quiet_and_the_next_one_speaks_again(now, caplog):
    caplog.set_level(logging.INFO, "distill3d")
    with ProgressBar("outer", total=2) as outer:
        for _ in track(range(5), "inner"):
            now["now"] += 20.0
        outer.advance()
    for _ in track(range(1), "later"):
        now["now"] += 20.0
    assert [record.message.split()[0] for record in caplog.records] == ["outer", "later"]


def test_an_error_inside_closes_the_bar(now, caplog):
    caplog.set_level(logging.INFO, "distill3d")
    with pytest.raises(RuntimeError), ProgressBar("broken"):
        raise RuntimeError
    for _ in track(iter([1]), "after"):
        now["now"] += 20.0
    assert [record.message for record in caplog.records] == ["after 1 · 20 s each"]


def test_slow_work_is_told_in_seconds_each():
    bar = ProgressBar("rendering", total=10)
    bar.done = 2
    assert bar.summary(8.0) == "rendering 2/10 · 4 s each · 32 s left"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "0 s"), (59.7, "1:00"), (185, "3:05"), (7800, "2:10:00")])
def test_durations_are_told_as_people_say_them(seconds, words):
    assert clock(seconds) == words
