"""The commands on real photos, with students too small and fresh to be right: what holds is the form, not the fit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.data.datasets.annotated import write_annotated_scene
from distill3d.train.logs import read_metrics
from tests.cli.calls import TRAIN_OPTIONS, call, save_fresh_student, succeed

LONG_SIDE = 56


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    return save_fresh_student(tmp_path_factory.mktemp("student") / "fresh.safetensors")


def annotated_scene(folder: Path, source: Path, split="") -> Path:
    """One of our scene folders from photos with a gt.json beside them; with depth where there is some."""
    views = json.loads((source / "gt.json").read_text())["views"]

    def read(name, kind):
        return [np.array(Image.open(source / view[name])).astype(kind) for view in views]

    images = np.stack(read("image" if "image" in views[0] else "color", np.float32)) / 255
    depth = torch.from_numpy(np.stack(read("depth", np.float32)) / 1000) if "depth" in views[0] else None
    write_annotated_scene(
        folder,
        torch.from_numpy(images).permute(0, 3, 1, 2),
        intrinsics=torch.tensor([view["K"] for view in views]),
        world_from_camera=torch.tensor([view["T_world_from_camera"] for view in views]),
        depth=depth,
        split=split,
        is_metric=depth is not None,
        image_format="jpg",
    )
    return folder


def read_reconstruction(folder: Path, said) -> list[dict]:
    """Every file opens and is finite; gives the cameras."""
    ply = (folder / "points.ply").read_bytes()
    header, _, body = ply.partition(b"end_header\n")
    count = int(header.split(b"element vertex ")[1].split()[0])
    assert 0 < count == said["num_points"]
    assert len(body) == count * (6 * 4 + 3 + 4 + 2)
    assert (folder / "points.glb").read_bytes()[:4] == b"glTF"
    cameras: list[dict] = json.loads((folder / "cameras.json").read_text())["cameras"]
    assert [camera["name"] for camera in cameras] == said["views"]
    assert np.isfinite([camera["world_from_camera"] for camera in cameras]).all()
    assert np.allclose(cameras[0]["world_from_camera"], np.eye(4))
    assert all(camera["source"]["intrinsics"][0][0] > 0 for camera in cameras)
    stored = sorted((folder / "depth").glob("*.npz"))
    assert len(stored) == len(list((folder / "depth").glob("*.png"))) == len(cameras)
    for path in stored:
        with np.load(path, allow_pickle=False) as arrays:
            assert np.isfinite(arrays["depth"]).all()
            assert list(arrays["depth"].shape) == said["size"]
    return cameras


def test_thirteen_photos_of_a_statue(shared_data, student, tmp_path):
    photos = shared_data / "buddha" / "images"
    said = succeed("reconstruct", photos, "--model", student, "--out", tmp_path / "out", "--window", 6)
    assert len(said["views"]) == 13
    assert said["size"] == [42, LONG_SIDE]  # 640 x 360 at a long side of 56, padded to whole patches
    cameras = read_reconstruction(tmp_path / "out", said)
    assert (cameras[0]["source"]["height"], cameras[0]["source"]["width"]) == (360, 640)
    assert said["errors_against_known_cameras"] is None


def test_known_cameras_of_a_desk_are_compared_with_honestly(shared_data, student, tmp_path):
    source = shared_data / "charuco_desk"
    scene = annotated_scene(tmp_path / "desk", source)
    said = succeed("reconstruct", scene, "--model", student, "--out", tmp_path / "out")
    cameras = read_reconstruction(tmp_path / "out", said)
    errors = said["errors_against_known_cameras"]
    assert json.loads((tmp_path / "out" / "info.json").read_text())["reconstruction"][
        "errors_against_known_cameras"
    ] == (errors)
    # The angles again, from the files alone: trace of the difference of relative rotations.
    ours = np.array([camera["world_from_camera"] for camera in cameras])[:, :3, :3]
    true = np.array([view["T_world_from_camera"] for view in json.loads((source / "gt.json").read_text())["views"]])
    true = true[:, :3, :3]
    for view, told in enumerate(errors["rotation_to_view_0_deg"], start=1):
        difference = (ours[0].T @ ours[view]) @ (true[0].T @ true[view]).T
        angle = np.degrees(np.arccos(np.clip((np.trace(difference) - 1) / 2, -1, 1)))
        assert told == pytest.approx(angle, abs=0.05)
    assert len(errors["rotation_to_view_0_deg"]) == len(cameras) - 1
    assert errors["rotation_median_deg"] > 1  # a network that has learned nothing cannot be right
    focal = np.median([abs(camera["source"]["intrinsics"][0][0] / 462.4376 - 1) for camera in cameras])
    assert errors["focal_percent"] == pytest.approx(100 * focal, rel=0.02)


def test_portrait_and_landscape_mixed_with_a_broken_file_among_them(shared_data, student, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    found = sorted((shared_data / "charuco_desk" / "images").glob("*.jpg"))[:4]
    for number, path in enumerate(found):
        with Image.open(path) as photo:
            turned = photo.rotate(90, expand=True) if number % 2 else photo
            turned.save(folder / f"{number}.jpg")
    whole = (folder / "0.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "notes.jpg").write_text("not a photo at all")
    said = succeed("reconstruct", folder, "--model", student, "--out", tmp_path / "out")
    cameras = read_reconstruction(tmp_path / "out", said)
    sizes = [(camera["source"]["height"], camera["source"]["width"]) for camera in cameras]
    assert sizes == [(360, 640), (640, 360), (360, 640), (640, 360)]
    assert said["size"] == [LONG_SIDE, LONG_SIDE]
    assert sorted(Path(entry["path"]).name for entry in said["skipped"]) == ["broken.jpg", "notes.jpg"]


def test_the_whole_chain_on_photos_without_truth(shared_data, student, tmp_path):
    shutil.copytree(shared_data / "buddha" / "images", tmp_path / "photos")
    (tmp_path / "photos" / "broken.jpg").write_text("not a photo at all")
    manifest, cache, run = tmp_path / "m.parquet", tmp_path / "cache", tmp_path / "run"
    listed = succeed("manifest", "build", tmp_path / "photos", "--out", manifest, "--test-fraction", 0.3)
    assert listed["frames"] == 13
    assert [Path(entry["path"]).name for entry in listed["skipped"]] == ["broken.jpg"]
    words = ("--teacher", student, "--views", 3, "--fit.long-side", LONG_SIDE)
    cached = succeed("cache", "build", "--manifest", manifest, "--out", cache, *words)
    assert cached["written"] == cached["groups"] > 0
    trained = succeed("train", "demo", "--cache", cache, "--out", run, *TRAIN_OPTIONS, "--steps", 3)
    assert np.isfinite(trained["loss"])
    words = (
        "--policy",
        "contiguous",
        "--views",
        2,
        "--teacher",
        student,
        "--reference",
        "teacher",
        "--train-groups",
        0,
    )
    scored = succeed("evaluate", "--model", run, "--manifest", manifest, "--out", tmp_path / "evaluation", *words)
    assert scored["protocol"].startswith("agreement")  # with the teacher: nobody knows the truth
    assert np.isfinite(scored["scores"]["student"]["depth_rel"])
    said = succeed("reconstruct", tmp_path / "photos", "--model", run, "--out", tmp_path / "points")
    assert len(read_reconstruction(tmp_path / "points", said)) == 13


def test_the_whole_chain_on_measured_depth_lowers_the_loss(shared_data, tmp_path):
    # Frames on the outside to learn from, those between them to be scored on.
    scene = annotated_scene(
        tmp_path / "room", shared_data / "rgbd_livingroom", split=["train", "test", "train", "test", "train"]
    )
    manifest, cache, run = tmp_path / "m.parquet", tmp_path / "cache", tmp_path / "run"
    assert succeed("manifest", "build", scene, "--out", manifest)["with_depth"] == 5
    words = ("--policy", "random", "--views", 2, "--groups", 3, "--fit.long-side", LONG_SIDE)
    assert succeed("cache", "build", "--manifest", manifest, "--out", cache, *words)["failed"] == 0
    succeed("train", "demo", "--cache", cache, "--out", run, *TRAIN_OPTIONS, "--steps", 40)
    losses = [record["loss"] for record in read_metrics(run) if record["kind"] == "train"]
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    words = ("--policy", "random", "--views", 2, "--groups", 1, "--train-groups", 3, "--teacher", "ground-truth")
    scored = succeed("evaluate", "--model", run, "--manifest", manifest, "--out", tmp_path / "evaluation", *words)
    assert scored["protocol"] == "heldout.v1"
    assert scored["scores"]["teacher"]["depth_rel"] < 1e-3  # the truth itself
    assert set(scored["scores"]) == {"student", "teacher", "mean pointmap", "constant depth"}
    said = succeed("reconstruct", scene, "--model", run, "--out", tmp_path / "points")
    assert len(read_reconstruction(tmp_path / "points", said)) == 5
    assert said["errors_against_known_cameras"]["num_pairs"] == 10
    shown = call("models", "show", run).out
    assert "ground-truth" in shown
