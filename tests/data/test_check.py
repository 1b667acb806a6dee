import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill3d.data.check import check_manifest, check_scene
from distill3d.data.consistency import PosedDepth, agreement, diagnose
from distill3d.data.manifest import Manifest, build_manifest
from distill3d.data.refs import Ref, codec
from distill3d.data.render.write import render_place
from distill3d.data.rows import Distortion, ManifestRow
from distill3d.files import read_json
from distill3d.geometry.cameras import camera_rays
from distill3d.geometry.lenses import distort, undistort


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A rendered room: exact depth and cameras."""
    folder = render_place(tmp_path_factory.mktemp("check") / "room", size=(72, 96), num_train=8, num_test=2)
    return build_manifest(folder)[0]


def changed(manifest, change):
    return Manifest.from_rows([change(row) for row in manifest.rows()], manifest.root)


def pose_of(row):
    return torch.tensor(row.world_from_camera, dtype=torch.float64)


def with_pose(row, pose):
    return replace(row, world_from_camera=tuple(map(tuple, pose.tolist())))


def with_centre(row, cx, cy):
    (fx, skew, _), (_, fy, _), last = row.intrinsics
    return replace(row, intrinsics=((fx, skew, cx), (0.0, fy, cy), last))


def scaled(factor):
    return lambda row: replace(row, depth=replace(row.depth, codec=f"npy?scale={factor}"))


OPENGL = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
MISTAKES = {
    "1000 times too large for the poses: millimetres read as metres": scaled(1000.0),
    "100 times too large for the poses: centimetres": scaled(100.0),
    "1000 times too small for the poses": scaled(0.001),
    "camera-from-world and were taken for world-from-camera": lambda row: with_pose(
        row, torch.linalg.inv(pose_of(row))
    ),
    "axes of OpenGL": lambda row: with_pose(row, pose_of(row) @ OPENGL),
    "camera-from-world, of cameras with the axes of OpenGL": lambda row: with_pose(
        row, torch.linalg.inv(pose_of(row) @ OPENGL)
    ),
    "is z-depth and was taken for the distance": lambda row: replace(row, depth_kind="distance"),
    "cx and cy of the principal point are swapped": lambda row: with_centre(
        row, row.intrinsics[1][2], row.intrinsics[0][2]
    ),
    "half a pixel too large": lambda row: with_centre(row, row.intrinsics[0][2] + 0.5, row.intrinsics[1][2] + 0.5),
    "half a pixel too small": lambda row: with_centre(row, row.intrinsics[0][2] - 0.5, row.intrinsics[1][2] - 0.5),
}


def test_a_true_scene_is_good(place):
    (found,) = check_manifest(place).scenes
    assert found.is_good
    assert found.share > 0.75
    assert found.error < 1e-4
    assert "pixels agree" in found.describe()


@pytest.mark.parametrize("words", MISTAKES)
def test_each_classic_mistake_is_caught_and_named(place, words):
    found = check_scene(changed(place, MISTAKES[words]), place.scenes()[0], anchors=2)
    assert not found.is_good
    assert words in found.mistake
    assert f"it looks as if {found.mistake}" in found.describe()


def test_distances_that_were_taken_for_depth_are_caught_and_named(place, tmp_path):
    root = tmp_path / "room"
    shutil.copytree(place.root, root)
    for row in place.rows():
        path = root / row.depth.path
        depth = np.load(path)
        rays = camera_rays(torch.tensor(row.intrinsics), *depth.shape).norm(dim=-1).numpy()
        np.save(path, depth * rays)
    wrong = replace(place, root=root)
    found = check_scene(wrong, place.scenes()[0])
    assert "distance along the ray and was taken for z-depth" in found.mistake
    right = changed(wrong, lambda row: replace(row, depth_kind="distance"))
    assert check_scene(right, place.scenes()[0]).is_good


def test_poses_that_no_classic_mistake_explains_are_still_suspicious(place):
    generator = torch.Generator().manual_seed(0)

    def stray(row):
        pose = pose_of(row)
        pose[:3, 3] += torch.randn(3, generator=generator, dtype=torch.float64)
        return with_pose(row, pose)

    found = check_scene(changed(place, stray), place.scenes()[0])
    assert not found.is_good
    assert found.share < 0.5


def test_depth_and_poses_that_share_a_wrong_unit_are_implausible(place):
    def far(row):
        pose = pose_of(row)
        pose[:3, 3] *= 1000
        return with_pose(scaled(1000.0)(row), pose)

    assert "share a wrong unit" in check_scene(changed(place, far), place.scenes()[0]).mistake


def test_scenes_without_depth_or_with_relative_depth_are_not_compared(place):
    assert check_manifest(changed(place, lambda row: replace(row, depth=None))).scenes == ()
    assert check_scene(changed(place, lambda row: replace(row, scale="relative")), place.scenes()[0]) is None


def test_a_lens_is_honoured():
    """Two views of a plane through a fisheye agree exactly, and not where the lens is forgotten."""
    lens = Distortion("OPENCV_FISHEYE", (0.05, -0.02, 0.0, 0.0))
    intrinsics = torch.tensor([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]], dtype=torch.float64)
    flat = camera_rays(intrinsics, 48, 64)[..., :2].reshape(-1, 2)
    rays = undistort(lens.model, lens.params, flat)
    assert torch.allclose(distort(lens.model, lens.params, rays), flat)
    frames = []
    for shift in (0.0, 0.4):  # the plane x + 4 z = 12, seen by two cameras that look along z
        depth = (12 - shift) / (rays[:, 0] + 4)
        pose = np.eye(4)
        pose[0, 3] = shift
        frames.append(PosedDepth(depth.reshape(48, 64).numpy(), intrinsics.numpy(), pose, lens))
    assert agreement([tuple(frames)]).error < 3e-5
    assert diagnose([tuple(frames)])[1] is None
    assert agreement([tuple(replace(frame, distortion=None) for frame in frames)]).error > 1e-3


def test_a_sample_of_files_is_decoded(place, tmp_path):
    root = tmp_path / "room"
    shutil.copytree(place.root, root)
    moved = replace(place, root=root)
    (root / place.row(place.scenes()[0], 0).image.path).unlink()
    found = check_manifest(moved, frames=3)
    assert (found.frames, len(found.broken)) == (3, 1)
    assert check_manifest(moved, frames=None).frames == 10


def test_real_depth_in_millimetres_is_caught_though_the_camera_hardly_moves(shared_data, tmp_path):
    folder = shared_data / "rgbd_livingroom"
    rows = []
    for frame, view in enumerate(read_json(folder / "gt.json")["views"]):
        intrinsics = tuple(map(tuple, np.array(view["K"], dtype=float).tolist()))
        pose = tuple(map(tuple, view["T_world_from_camera"]))
        row = ManifestRow(
            dataset="table", scene="s", frame=frame, image=Ref(view["color"]), width=640, height=480, scale="sfm"
        )
        depth = Ref(view["depth"], codec("png16", scale=0.001))
        rows.append(replace(row, intrinsics=intrinsics, world_from_camera=pose, depth=depth))
    true = Manifest.from_rows(rows, folder)
    found = check_scene(true, "s")
    assert found.is_good
    assert found.share > 0.97
    wrong = changed(true, lambda row: replace(row, depth=replace(row.depth, codec="png16")))
    assert "millimetres read as metres" in check_scene(wrong, "s").mistake
