import numpy as np
import pytest

from distill3d.data.listing import as_matrix, below, each_frame, read_part, required, scaled_pinhole
from distill3d.errors import DataError


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_folders_at_several_depths_are_found_in_natural_order(tmp_path):
    for name in ("scene10/images/a.jpg", "scene2/images/a.jpg", "other/scene1/images/a.jpg", ".hidden/images/a.jpg"):
        touch(tmp_path / name)
    found = [path.relative_to(tmp_path).as_posix() for path in below(tmp_path, "images")]
    assert found == ["other/scene1/images", "scene2/images", "scene10/images"]
    assert len(below(tmp_path, "images", depth=1)) == 2
    assert below(tmp_path, "images", depth=0) == []
    assert below(tmp_path / "other", "scene*/images") == [tmp_path / "other/scene1/images"]
    assert below(tmp_path / "scene2", "scene*/images", itself=True) == [tmp_path / "scene2/images"]
    assert below(tmp_path / "scene2/images/a.jpg", "images") == []


def test_all_of_many_folders_are_found_though_few_are_looked_into(tmp_path):
    for number in range(450):
        touch(tmp_path / f"scene{number}/images/a.jpg")
        (tmp_path / f"scene{number}/masks").mkdir()
    assert len(below(tmp_path, "images")) == 450
    assert len(below(tmp_path, "a.jpg")) == 450
    assert below(tmp_path, "depth") == []


def test_a_broken_frame_is_told_and_the_others_are_kept():
    def make(number):
        return {0: lambda: "row", 1: lambda: [][1], 2: lambda: {}["fx"], 3: lambda: required_nowhere()}[number]()

    def required_nowhere():
        raise DataError("There is no depth map.")

    skipped = []
    assert list(each_frame([0, 1, 2, 3, 0], make, lambda number: f"frame {number}", skipped.append)) == ["row"] * 2
    assert [entry.path for entry in skipped] == ["frame 1", "frame 2", "frame 3"]
    assert [entry.reason for entry in skipped] == [
        "frame 1: list index out of range",
        "frame 2: fx",
        "There is no depth map.",
    ]


def test_a_bug_of_ours_is_not_taken_for_a_broken_frame():
    def make(_):
        raise AssertionError("bug")

    with pytest.raises(AssertionError):
        list(each_frame([0], make, str, print))


def test_what_a_part_needs_is_there_and_whole(tmp_path):
    with pytest.raises(DataError, match=r"no camera: .*cam\.txt does not exist"):
        required(tmp_path / "cam.txt", "camera")
    touch(tmp_path / "cam.txt")
    with pytest.raises(DataError, match="camera is empty"):
        read_part("camera", tmp_path / "cam.txt", np.loadtxt)
    (tmp_path / "cam.txt").write_text("fx = five")
    with pytest.raises(DataError, match=r"cam\.txt \(camera\) cannot be read"):
        read_part("camera", tmp_path / "cam.txt", np.loadtxt)


def test_lost_poses_are_not_known():
    with pytest.raises(DataError, match="not finite"):
        as_matrix(np.full((4, 4), np.nan))


def test_a_camera_follows_its_picture_but_not_into_another_view():
    stated = scaled_pinhole(320, 320, 319.5, 239.5, (480, 640), (48, 64))
    assert np.allclose(stated, [[32, 0, 31.5], [0, 32, 23.5], [0, 0, 1]])
    with pytest.raises(DataError, match="640x360, expected 640x480"):
        scaled_pinhole(320, 320, 319.5, 239.5, (480, 640), (360, 640))
