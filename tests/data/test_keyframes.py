import cv2
import numpy as np
import pytest

from distill3d.data.keyframes import sharpest_frames, sharpness
from distill3d.data.manifest import build_manifest
from distill3d.data.video import choose_frames, video_info
from tests.data.pictures import picture


def film(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def pattern(shift=0, blur=0):
    wall = np.random.default_rng(0).integers(0, 255, (12, 60, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    seen = wall[:, shift : shift + 128]
    return cv2.GaussianBlur(seen, (0, 0), blur) if blur else seen


def test_blur_is_less_sharp():
    assert sharpness(pattern()) > 2 * sharpness(pattern(blur=2)) > 4 * sharpness(pattern(blur=5))
    assert sharpness(np.full((24, 32, 3), 7, np.uint8)) == 0


def test_the_sharpest_frame_near_each_moment_is_taken(tmp_path):
    sharp = {2, 8, 13, 20}
    path = film(tmp_path / "a.avi", [pattern(shift=8 * k, blur=0 if k in sharp else 3) for k in range(24)])
    info = video_info(path)
    chosen = choose_frames(info, rate=10 / 6)
    assert chosen == (0, 6, 12, 18)
    assert sharpest_frames(info, chosen) == (2, 8, 13, 20)


def test_nothing_is_taken_while_the_camera_stands_still(tmp_path):
    path = film(tmp_path / "a.avi", [pattern(shift=0 if k < 12 else 8 * (k - 11)) for k in range(24)])
    info = video_info(path)
    taken = sharpest_frames(info, tuple(range(0, 24, 2)))
    assert sum(index < 12 for index in taken) == 1
    assert sum(index >= 12 for index in taken) >= 5


@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_video_in_which_nothing_moves_still_gives_what_is_needed(tmp_path, count):
    info = video_info(film(tmp_path / "a.avi", [picture(48, 64)] * count))
    taken = sharpest_frames(info, tuple(range(count)))
    assert len(taken) == min(count, 2)
    assert list(taken) == sorted(set(taken))


def test_a_manifest_of_sharp_frames(tmp_path):
    film(tmp_path / "a.avi", [pattern(shift=8 * k, blur=0 if k % 6 == 2 else 3) for k in range(24)])
    manifest, _ = build_manifest(tmp_path, rate=10 / 6, sharpest=True)
    assert manifest.frames("a.avi") == (2, 8, 14, 20)
