from pathlib import Path

import numpy as np
import pytest

from distill3d.data import video
from distill3d.data.video import VideoInfo, VideoPool, choose_frames, read_video_frames, spread, video_info
from distill3d.errors import DataError
from tests.data.films import frame_number, save_film


def film_of(num_frames, fps=30.0):
    return VideoInfo(Path("film.mp4"), num_frames, fps, 48, 64)


@pytest.mark.parametrize("name", ["film.avi", "film.mp4"])
def test_a_video_tells_what_it_holds(tmp_path, name):
    found = video_info(save_film(tmp_path / name, frames=25, fps=12.5))
    assert (found.num_frames, found.height, found.width) == (25, 48, 64)
    assert found.fps == pytest.approx(12.5, rel=0.05)
    assert found.seconds == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("name", ["film.avi", "film.mp4"])
def test_frames_come_by_number_in_rgb(tmp_path, name):
    path = save_film(tmp_path / name, frames=30)
    frames = dict(read_video_frames(path, [17, 3, 3, 29, 0]))
    assert list(frames) == [0, 3, 17, 29]
    assert [frame_number(frame) for frame in frames.values()] == [0, 3, 17, 29]
    red, _, blue = frames[0][:, :8].reshape(-1, 3).mean(axis=0)
    assert blue > 200 > 60 > red


def test_a_header_that_promises_too_much_is_not_believed(tmp_path):
    path = save_film(tmp_path / "film.avi", frames=40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    found = video_info(path)
    assert 10 < found.num_frames < 30
    chosen = choose_frames(found, rate=1000)
    assert [frame_number(frame) for _, frame in read_video_frames(path, chosen)] == list(range(found.num_frames))
    with pytest.raises(DataError, match=f"ends after {found.num_frames} frames, expected a frame number 39"):
        list(read_video_frames(path, [39]))


@pytest.mark.parametrize(
    ("told", "count", "last", "expected"),
    [
        (30.0, 91, 3.0, 30.0),
        (29.97, 91, 3.0, 29.97),
        (90000.0, 91, 3.0, 30.0),  # a time base in the place of the rate
        (0.0, 91, 3.0, 30.0),
        (float("nan"), 91, 0.0, 30.0),
        (60.0, 91, 3.0, 30.0),  # contradicted by the time stamps
        (25.0, 1, 0.0, 25.0),
    ],
)
def test_an_impossible_rate_is_replaced(told, count, last, expected):
    assert video._true_fps(told, count, last) == pytest.approx(expected)


def test_frames_are_chosen_by_rate():
    assert choose_frames(film_of(91), rate=2.0) == (0, 15, 30, 45, 60, 75, 90)
    assert choose_frames(film_of(10), rate=1000) == tuple(range(10))


def test_too_many_frames_are_thinned_over_the_whole_video():
    chosen = choose_frames(film_of(9000), rate=10, max_frames=5)
    assert chosen == (0, 2250, 4500, 6749, 8999)


def test_a_short_video_still_gives_what_is_needed():
    assert choose_frames(film_of(8), rate=1.0) == (0, 7)
    assert choose_frames(film_of(8), rate=1.0, at_least=4) == (0, 2, 5, 7)
    assert choose_frames(film_of(1)) == (0,)


@pytest.mark.parametrize("settings", [{"rate": 0}, {"rate": -1.0}, {"max_frames": 0}])
def test_impossible_choices_are_refused(settings):
    with pytest.raises(DataError, match="expected positive numbers"):
        choose_frames(film_of(10), **settings)


@pytest.mark.parametrize(("total", "count"), [(1, 1), (5, 1), (5, 2), (5, 5), (5, 9), (100, 7)])
def test_spread_is_even_and_without_repeats(total, count):
    chosen = spread(total, count)
    assert len(set(chosen)) == len(chosen) == min(total, count)
    gaps = np.diff(chosen)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def damaged(tmp_path, kind):
    path = tmp_path / "film.mp4"
    if kind == "text":
        path.write_text("frame one: a cat\n" * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "cut short":
        data = save_film(path).read_bytes()
        path.write_bytes(data[: len(data) // 2])  # MP4 keeps its table of contents at the end
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "cannot be decoded as a video; expected MP4, .*Convert it"),
        ("empty", r"is empty \(0 bytes\)"),
        ("folder", "is a folder, expected a video"),
        ("cut short", "cannot be decoded as a video"),
        ("missing", "does not exist, expected a video"),
    ],
)
def test_a_video_that_cannot_be_read_says_why_and_prints_nothing(tmp_path, kind, words, capfd):
    with pytest.raises(DataError, match=words):
        video_info(damaged(tmp_path, kind))
    assert capfd.readouterr().out == ""


def test_a_pool_reads_backwards_and_across_videos_and_keeps_few_open(tmp_path):
    paths = [save_film(tmp_path / f"{index}.avi", frames=8) for index in range(3)]
    with VideoPool(capacity=2) as pool:
        for path, number in [(paths[0], 5), (paths[1], 2), (paths[0], 6), (paths[2], 7), (paths[0], 1), (paths[0], 1)]:
            assert frame_number(pool.read(path, number)) == number
        assert len(pool._readers) == 2
    assert len(pool._readers) == 0
