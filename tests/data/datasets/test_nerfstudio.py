import json
import math

import numpy as np
import pytest
from PIL import Image

from distill3d.data.frames import read_depth, read_mask
from distill3d.data.rows import Distortion
from distill3d.data.sources import find_source
from distill3d.errors import DataError
from tests.data.pictures import save_picture

CAMERA = {"fl_x": 50.0, "fl_y": 51.0, "cx": 32.0, "cy": 24.0, "w": 64, "h": 48}


def write(root, poses, name="transforms.json", **scene):
    frames = []
    for number, pose in enumerate(poses):
        save_picture(root / f"images/frame_{number + 8}.png", 48, 64, seed=number)
        frames.append({"file_path": f"./images/frame_{number + 8}", "transform_matrix": np.asarray(pose).tolist()})
    (root / name).write_text(json.dumps({**CAMERA, **scene, "frames": frames}))
    return root


def rows_of(root, **options):
    source = find_source(root)
    assert source.dataset == "nerfstudio"
    return list(source.scan(**options))


@pytest.mark.parametrize("kind", ["applied_transform", "assumed", "plain", "opencv"])
def test_every_flavour_of_world_gives_the_same_poses(tmp_path, fixtures, kind):
    golden = np.load(fixtures / "data_formats/nerfstudio_pose.npz")
    truth = golden["colmap_c2w"]
    if kind == "applied_transform":
        stored, more = golden["nerfstudio_transform_matrix"], {}
        more["applied_transform"] = golden["nerfstudio_applied_transform"].tolist()
    elif kind == "assumed":  # the flavour of ScanNet++: turned without saying so
        stored, more = golden["scannetpp_transform_matrix"], {}
        (tmp_path / "colmap/sparse/0").mkdir(parents=True)
    elif kind == "plain":
        stored, more = truth @ np.diag([1, -1, -1, 1.0]), {}
    else:
        stored, more = truth, {"camera_convention": "opencv"}
    rows = rows_of(write(tmp_path, stored, **more))
    assert [row.frame for row in rows] == [0, 1, 2, 3]
    assert np.abs(np.array([row.world_from_camera for row in rows]) - truth).max() < 1e-12


def test_cameras_count_from_the_corner_and_keep_their_lens(tmp_path):
    write(tmp_path / "a", [np.eye(4)], camera_model="OPENCV", k1=0.1, p2=0.01)
    (row,) = rows_of(tmp_path / "a")
    assert row.intrinsics == ((50.0, 0.0, 31.5), (0.0, 51.0, 23.5), (0.0, 0.0, 1.0))
    assert row.distortion == Distortion("OPENCV", (0.1, 0.0, 0.0, 0.01))
    write(tmp_path / "b", [np.eye(4)], camera_model="OPENCV_FISHEYE", k1=0.1, k4=0.2)
    assert rows_of(tmp_path / "b")[0].distortion == Distortion("OPENCV_FISHEYE", (0.1, 0.0, 0.0, 0.2))
    write(tmp_path / "c", [np.eye(4)], camera_model="OPENCV", k1=0)
    assert rows_of(tmp_path / "c")[0].distortion is None


def test_the_files_of_blender_know_the_field_of_view_and_the_splits(tmp_path):
    for split, start in (("train", 0), ("test", 3)):
        frames = []
        for number in range(start, start + 3):
            save_picture(tmp_path / f"{split}/r_{number}.png", 40, 40, seed=number)
            frames.append({"file_path": f"./{split}/r_{number}", "transform_matrix": np.eye(4).tolist()})
        (tmp_path / f"transforms_{split}.json").write_text(
            json.dumps({"camera_angle_x": math.radians(90), "frames": frames})
        )
    rows = rows_of(tmp_path)
    assert [row.split for row in rows] == ["test"] * 3 + ["train"] * 3
    assert [row.frame for row in rows] == list(range(6))
    assert np.allclose(rows[0].intrinsics, [[20, 0, 19.5], [0, 20, 19.5], [0, 0, 1]])


def test_depth_in_millimetres_and_masks_come_along(tmp_path):
    write(tmp_path, [np.eye(4)])
    scene = json.loads((tmp_path / "transforms.json").read_text())
    scene["frames"][0] |= {"depth_file_path": "depth/0.png", "mask_path": "masks/0.png"}
    (tmp_path / "transforms.json").write_text(json.dumps(scene))
    (tmp_path / "depth").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.full((48, 64), 1500, np.uint16)).save(tmp_path / "depth/0.png")
    Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 64, 1).repeat(24, 0)).save(tmp_path / "masks/0.png")
    (row,) = rows_of(tmp_path)
    assert (read_depth(row, tmp_path) == np.float32(1.5)).all()
    assert read_mask(row, tmp_path).mean(axis=1).tolist() == [0] * 24 + [1] * 24


def test_frames_that_cannot_be_used_are_skipped_and_a_damaged_file_says_so(tmp_path):
    bad = np.eye(4)
    bad[0, 0] = np.nan
    write(tmp_path, [np.eye(4), bad, np.eye(4)])
    (tmp_path / "images/frame_10.png").unlink()
    skipped = []
    assert [row.frame for row in rows_of(tmp_path, on_skip=skipped.append)] == [0]
    assert len(skipped) == 2
    assert "which is not there" in skipped[1].reason
    (tmp_path / "transforms.json").write_text('{"frames": 3}')
    with pytest.raises(DataError, match='expected a list of "frames"'):
        rows_of(tmp_path)
