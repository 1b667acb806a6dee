import json

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.data.datasets.annotated import DATASET, find, read_scene, write_annotated_scene
from distill3d.data.frames import read_depth
from distill3d.errors import DataError


def scene_tensors(frames=3, height=6, width=8):
    generator = torch.Generator().manual_seed(frames)
    images = torch.rand(frames, 3, height, width, generator=generator)
    depth = 1 + torch.rand(frames, height, width, generator=generator)
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(frames, 1, 1)
    intrinsics[:, 0, 0] = 7 + torch.arange(frames)
    poses = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    poses[:, 0, 3] = torch.arange(frames) / 3
    return images, depth, intrinsics, poses


def test_a_written_scene_is_scanned_back(tmp_path):
    images, depth, intrinsics, poses = scene_tensors()
    write_annotated_scene(
        tmp_path / "room",
        images,
        depth=depth,
        intrinsics=intrinsics,
        world_from_camera=poses,
        split=["train", "test", "train"],
        is_metric=True,
        licence="CC0-1.0",
        info={"seed": 3},
    )
    rows = list(DATASET.scan(tmp_path))
    assert [(row.scene, row.frame, row.split) for row in rows] == [
        ("room", 0, "train"),
        ("room", 1, "test"),
        ("room", 2, "train"),
    ]
    assert {(row.dataset, row.width, row.height, row.is_metric, row.licence) for row in rows} == {
        ("annotated", 8, 6, True, "CC0-1.0")
    }
    assert torch.equal(torch.tensor([row.world_from_camera for row in rows], dtype=torch.float64), poses)
    assert torch.equal(torch.tensor([row.intrinsics for row in rows], dtype=torch.float64), intrinsics)
    assert np.array_equal(np.load(tmp_path / rows[1].depth.path), depth[1].numpy())
    with Image.open(tmp_path / rows[2].image.path) as image:
        assert np.array_equal(np.asarray(image), (images[2] * 255).round().byte().permute(1, 2, 0).numpy())
    assert read_scene(tmp_path / "room")["info"] == {"seed": 3}


def test_a_scene_may_be_the_root_itself(tmp_path):
    write_annotated_scene(tmp_path / "yard", scene_tensors()[0])
    assert [row.scene for row in DATASET.scan(tmp_path / "yard")] == ["yard"] * 3
    assert next(row.image.path for row in DATASET.scan(tmp_path / "yard")) == "images/000000.png"


def test_scenes_come_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        write_annotated_scene(tmp_path / f"room_{number}", scene_tensors(frames=1)[0])
    assert [folder.name for folder in find(tmp_path)] == ["room_1", "room_2", "room_10"]


def test_depth_in_16_bits_is_right_to_half_a_step_and_unknown_stays_unknown(tmp_path):
    images, depth, *_ = scene_tensors(frames=1)
    depth[0, 0, 0], depth[0, 0, 1] = 0, torch.inf
    write_annotated_scene(tmp_path, images, depth=depth, depth_unit=0.001)
    (row,) = DATASET.scan(tmp_path)
    with Image.open(tmp_path / row.depth.path) as image:
        stored = np.asarray(image)
    assert stored.dtype == np.uint16
    assert stored[0, 0] == stored[0, 1] == 0
    assert row.depth.codec == "png16?scale=0.001"
    read = read_depth(row, tmp_path)
    assert read[0, :2].tolist() == [0, 0]
    assert np.abs(read - depth[0].numpy())[1:].max() <= 0.00051


def test_depth_that_does_not_fit_16_bits_is_refused(tmp_path):
    images, depth, *_ = scene_tensors(frames=1)
    with pytest.raises(DataError, match=r"more than 65535 steps of 1e-06.*larger depth_unit"):
        write_annotated_scene(tmp_path, images, depth=depth, depth_unit=1e-6)


def test_jpg_scenes_keep_their_colours(tmp_path):
    images = torch.full((1, 3, 16, 16), 0.5)
    write_annotated_scene(tmp_path, images, image_format="jpg")
    (row,) = DATASET.scan(tmp_path)
    assert row.image.path.endswith(".jpg")
    with Image.open(tmp_path / row.image.path) as image:
        assert np.abs(np.asarray(image).astype(int) - 128).max() <= 1


def test_a_missing_photo_or_depth_is_left_out_with_its_reason(tmp_path):
    images, depth, *_ = scene_tensors()
    write_annotated_scene(tmp_path / "s", images, depth=depth)
    (tmp_path / "s/images/000001.png").unlink()
    (tmp_path / "s/depth/000002.npy").unlink()
    skipped = []
    assert [row.frame for row in DATASET.scan(tmp_path, on_skip=skipped.append)] == [0]
    assert [entry.path for entry in skipped] == ["s/images/000001.png", "s/images/000002.png"]
    assert "depth/000002.npy, which is not there" in skipped[1].reason


def test_a_camera_that_is_no_matrix_is_left_out(tmp_path):
    path = write_annotated_scene(tmp_path, scene_tensors()[0], world_from_camera=scene_tensors()[3])
    scene = json.loads(path.read_text())
    scene["frames"][0]["world_from_camera"] = [[1, 2], [3, 4]]
    scene["frames"][1]["world_from_camera"][0][0] = float("nan")
    path.write_text(json.dumps(scene))
    skipped = []
    assert [row.frame for row in DATASET.scan(tmp_path, on_skip=skipped.append)] == [2]
    assert all("expected 4x4" in entry.reason for entry in skipped)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "is not an annotated scene"),
        ('{"format": "other", "frames": []}', "is not an annotated scene"),
        ('{"format": "distill3d-scene", "version": 99, "frames": []}', "version 99; this distill3d knows version 1"),
        ('{"format": "distill3d-scene", "version": 1, "frames": [{}]}', r"frames \[0\] have no \"image\""),
    ],
)
def test_a_scene_file_that_cannot_be_used_says_why(tmp_path, text, words):
    (tmp_path / "scene.json").write_text(text)
    with pytest.raises(DataError, match=words):
        list(DATASET.scan(tmp_path))


def test_a_folder_without_scenes_has_no_parts(tmp_path):
    assert find(tmp_path) == []


def test_one_split_is_needed_for_each_image(tmp_path):
    with pytest.raises(DataError, match="2 splits for 3 images"):
        write_annotated_scene(tmp_path, scene_tensors()[0], split=["train", "test"])


def test_sizes_are_read_from_the_photo_where_the_scene_does_not_say(tmp_path):
    path = write_annotated_scene(tmp_path, scene_tensors()[0])
    scene = json.loads(path.read_text())
    for frame in scene["frames"]:
        del frame["width"], frame["height"]
    path.write_text(json.dumps(scene))
    assert {(row.width, row.height) for row in DATASET.scan(tmp_path)} == {(8, 6)}
