import json
import logging
import shutil
import sys

import numpy as np
import pytest
import torch

from distill3d import teachers
from distill3d.cache import CacheReader
from distill3d.data.fit import ImageFit
from distill3d.data.groups import load_group
from distill3d.data.manifest import build_manifest
from distill3d.data.sampling import ViewGroup, contiguous
from distill3d.errors import ConfigError, DataError
from distill3d.geometry.align import umeyama
from distill3d.geometry.cameras import project_points
from distill3d.teachers import SceneTeacher, Teacher
from distill3d.teachers.run import run_teacher
from tests.cli.calls import call
from tests.data.pictures import save_picture
from tests.teachers.colmap.projects import BAD_POINT, HEIGHT, SHORT_TRACK, WIDTH, project_cloud, write_project

FIT = ImageFit(long_side=32, multiple=8)


@pytest.fixture
def yard(tmp_path):
    points, cameras = write_project(tmp_path / "yard")
    return tmp_path / "yard", build_manifest(tmp_path / "yard")[0], points, cameras


def predict(teacher, manifest, frames=(0, 1, 2), fit=FIT):
    group = ViewGroup(manifest.scenes()[0], frames)
    views = load_group(manifest, group, fit)
    return views, teacher.predict_group(views, manifest, group, fit)


def test_points_stand_at_the_pixels_where_they_were_observed(yard):
    root, manifest, points, cameras = yard
    teacher = teachers.load("colmap", project=root)
    assert isinstance(teacher, Teacher)
    assert isinstance(teacher, SceneTeacher)
    _, found = predict(teacher, manifest)
    expected = torch.from_numpy(np.linalg.inv(cameras[0]) @ cameras)
    assert torch.allclose(found.world_from_camera[0].double(), expected, atol=1e-6)
    good = [index for index in range(len(points)) if index not in (SHORT_TRACK, BAD_POINT)]
    for view in range(3):
        pixels, local = project_cloud(points[good], cameras[view])
        canvas = np.rint((pixels + 0.5) / 2 - 0.5).astype(int)  # the photo at half its size
        seen = {(line, column) for column, line in canvas}
        assert {tuple(place) for place in found.valid[0, view].nonzero().tolist()} == seen
        for (column, line), point in zip(canvas, local, strict=True):
            label = found.pointmap_camera[0, view, line, column].double().numpy()
            assert np.allclose(label, point, atol=1e-5) or label[2] < point[2]  # the nearer of two in one pixel
    # The cameras speak of the canvas: every label projects into its own pixel.
    pixel, _ = project_points(found.pointmap_camera, found.intrinsics)
    lines, columns = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    off = (pixel - torch.stack([columns, lines], dim=-1)).abs()[found.valid]
    assert off.max() <= 0.5 + 1e-4
    world = found.pointmap_world[found.valid].double()
    from_world = torch.from_numpy(np.linalg.inv(cameras[0]))
    cloud = torch.from_numpy(points) @ from_world[:3, :3].T + from_world[:3, 3]
    assert torch.cdist(world, cloud).min(dim=1).values.max() < 1e-5
    assert torch.equal(found.confidence_world > 1, found.valid)
    assert found.confidence_world.max() == pytest.approx(1 + 3 / 1.5)


def test_a_project_becomes_a_cache_by_its_name_alone(yard, tmp_path):
    root, manifest, _, _ = yard
    manifest.save(tmp_path / "m.parquet")
    words = ("--teacher", "colmap", "--views", 3, "--fit.long-side", 32, "--fit.multiple", 8)
    called = call("cache", "build", "--manifest", tmp_path / "m.parquet", "--out", tmp_path / "c", *words, "--json")
    assert called.code == 0, called.err
    reader = CacheReader(tmp_path / "c")
    assert reader.verify() == []
    (sample,) = list(reader)
    _, found = predict(teachers.load("colmap", project=root), manifest)
    assert torch.equal(sample.valid, found.valid)
    worst = (sample.prediction.pointmap_camera - found.pointmap_camera).norm(dim=-1)[found.valid].max()
    assert worst < 5e-3  # 2^-11 of a distance of six
    assert reader.header.weights_hash == teachers.load("colmap", project=root).weights_hash
    assert reader.header.teacher_settings["source"] == "project"


def test_frames_that_were_not_registered_are_named(yard, tmp_path):
    root, _, _, _ = yard
    save_picture(root / "images/p3.png", HEIGHT, WIDTH, seed=9)
    shutil.copytree(root / "images", tmp_path / "photos/images")
    manifest = build_manifest(tmp_path / "photos")[0]
    groups = [ViewGroup(manifest.scenes()[0], frames) for frames in ((0, 1), (2, 3))]
    done = run_teacher(teachers.load("colmap", project=root), manifest, groups, tmp_path / "c", fit=FIT, batch_size=2)
    assert done.num_written == 1
    assert done.failures[0][0] == groups[1].key
    assert "frames [3] are not in the COLMAP model" in done.failures[0][1]


def test_each_scene_finds_its_own_model_though_photos_have_equal_names(tmp_path):
    expected = {}
    for seed, name in enumerate(("garden", "yard")):
        expected[name] = write_project(tmp_path / "all" / name, seed=seed)[1]
    manifest = build_manifest(tmp_path / "all")[0]
    teacher = teachers.load("colmap", project=tmp_path / "all")
    for name in manifest.scenes():
        group = ViewGroup(name, (0, 1, 2))
        found = teacher.predict_group(load_group(manifest, group, FIT), manifest, group, FIT)
        pose = np.linalg.inv(expected[name][0]) @ expected[name][2]
        assert np.allclose(found.world_from_camera[0, 2].numpy(), pose, atol=1e-5)


def test_what_cannot_teach_says_why(yard, tmp_path, monkeypatch):
    root, manifest, _, _ = yard
    with pytest.raises(DataError, match="holds no COLMAP model"):
        teachers.load("colmap", project=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="not both"):
        teachers.load("colmap", project=root, work=tmp_path / "w")
    with pytest.raises(DataError, match="call predict_group"):
        teachers.load("colmap", project=root).predict(load_group(manifest, contiguous(manifest, 2)[0], FIT))
    with pytest.raises(DataError, match="show no point that is good enough"):
        predict(teachers.load("colmap", project=root, min_track=9), manifest)
    (root / "sparse/0/points3D.bin").unlink()
    with pytest.raises(DataError, match="cameras alone are no labels"):
        predict(teachers.load("colmap", project=root), manifest)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ConfigError, match=r"pip install 'distill3d\[colmap\]'"):
        teachers.load("colmap")


def test_photos_that_show_nothing_in_common_give_no_model(yard, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="distill3d")
    pytest.importorskip("pycolmap")
    root, _, _, _ = yard
    shutil.copytree(root / "images", tmp_path / "photos")
    manifest = build_manifest(tmp_path / "photos")[0]
    (tmp_path / "work").mkdir()
    teacher = teachers.load("colmap", work=tmp_path / "work")
    for _ in range(2):
        with pytest.raises(DataError, match="its 3 readable photos overlap too little"):
            predict(teacher, manifest)
    assert caplog.text.count("structure from motion of scene") == 1  # it is not tried for every group
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


def test_bare_photos_give_the_cameras_that_a_marker_board_gives(shared_data, tmp_path):
    pytest.importorskip("pycolmap")
    manifest = build_manifest(shared_data / "charuco_desk/images")[0]
    teacher = teachers.load("colmap", work=tmp_path)
    _, found = predict(teacher, manifest, frames=tuple(range(7)), fit=ImageFit(long_side=448))
    truth = json.loads((shared_data / "charuco_desk/gt.json").read_text())["views"]
    expected = torch.tensor([view["T_world_from_camera"] for view in truth]).double()
    poses = found.world_from_camera[0].double()
    turned = poses[:, :3, :3] @ expected[:, :3, :3].transpose(-1, -2)
    angles = torch.rad2deg(torch.acos(((turned.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1)))
    assert angles.max() < 1.5
    aligned = umeyama(poses[:, :3, 3], expected[:, :3, 3], torch.ones(7, dtype=torch.float64))
    moved = aligned.scale * poses[:, :3, 3] @ aligned.rotation.T + aligned.translation
    assert (moved - expected[:, :3, 3]).norm(dim=-1).max() < 0.01  # metres, of a path of 0.26
    assert found.valid[0].sum(dim=(1, 2)).min() > 100
    # A second time the model is read and not made, and gives the same labels.
    again = predict(teachers.load("colmap", work=tmp_path), manifest, tuple(range(7)), ImageFit(long_side=448))[1]
    assert torch.equal(found.pointmap_world, again.pointmap_world)
