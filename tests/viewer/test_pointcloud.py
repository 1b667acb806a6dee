import base64
import dataclasses
import json

import numpy as np
import pytest
import torch

from distill3d.errors import OutputError
from distill3d.export.upright import gltf_from_world
from distill3d.viewer.pointcloud import frame_scene, pack_scene, picture_of_scene, scene_from_reconstruction
from tests.export.synthetic import room_reconstruction


@pytest.fixture(scope="module")
def scene():
    return scene_from_reconstruction(room_reconstruction(3, 24, 32))


def unpack(text: str, dtype: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def test_packed_positions_are_within_half_a_step_in_display_axes(scene):
    record = pack_scene(scene)
    values = unpack(record["positions"], "<u2", -1, 3)
    read = np.array(record["origin"]) + values * np.array(record["step"])
    expected = scene.cloud.points @ gltf_from_world(scene.world_from_camera)[:3, :3].T
    assert (np.abs(read - expected) <= 0.5 * np.array(record["step"]) + 1e-6).all()
    extent = np.ptp(expected, axis=0)
    np.testing.assert_allclose(record["step"], extent / 65535, rtol=1e-5)


def test_packed_colours_views_and_normals_come_back(scene):
    record = pack_scene(scene)
    np.testing.assert_array_equal(unpack(record["colors"], "u1", -1, 3), scene.cloud.colors)
    np.testing.assert_array_equal(unpack(record["views"], "<u2", -1), scene.cloud.view)
    normals = unpack(record["normals"], "i1", -1, 3) / 127
    expected = scene.cloud.normal @ gltf_from_world(scene.world_from_camera)[:3, :3].T
    np.testing.assert_allclose(normals, expected, atol=0.005)
    confidence = unpack(record["confidence"], "u1", -1)
    order = np.argsort(scene.cloud.confidence)
    assert (np.diff(confidence[order].astype(int)) >= 0).all()
    assert record["count"] == len(scene.cloud) == len(confidence)


def test_the_record_is_plain_json(scene):
    assert json.loads(json.dumps(pack_scene(scene), allow_nan=False))["format"] == 1


def test_a_flat_cloud_and_a_single_point_can_be_packed(scene):
    for count in (1, 5):
        cloud = dataclasses.replace(
            scene.cloud,
            points=np.repeat(scene.cloud.points[:1], count, axis=0),
            **{name: getattr(scene.cloud, name)[:count] for name in ("colors", "confidence", "view", "normal")},
        )
        tiny = dataclasses.replace(scene, cloud=cloud)
        assert json.dumps(pack_scene(tiny), allow_nan=False)
        assert picture_of_scene(tiny, (8, 12)).shape == (8, 12, 4)


def test_the_first_look_shows_nearly_all_points(scene):
    framing = frame_scene(scene)
    picture = picture_of_scene(scene, (90, 160), cameras=False)
    assert (picture[..., 3] > 0).mean() > 0.3
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (border[:, 3] > 0).mean() < 0.25
    assert framing.eye(1.0)[1] > framing.target[1]  # from above


def test_every_camera_looks_at_its_own_points(scene):
    record = pack_scene(scene)
    points = scene.cloud.points @ gltf_from_world(scene.world_from_camera)[:3, :3].T
    for index, camera in enumerate(record["cameras"]):
        toward = points[scene.cloud.view == index] - np.array(camera["center"])
        assert (toward @ np.array(camera["forward"]) > 0).all()
        assert camera["thumbnail"].startswith("data:image/jpeg;base64,")
        assert camera["distance"] == pytest.approx(np.median(toward @ np.array(camera["forward"])), rel=1e-3)


def test_a_reconstruction_without_cameras_is_an_error():
    room = room_reconstruction(2, 8, 8)
    with pytest.raises(OutputError, match="no cameras"):
        scene_from_reconstruction(
            dataclasses.replace(room, prediction=dataclasses.replace(room.prediction, intrinsics=None))
        )
    with pytest.raises(OutputError, match="no point"):
        scene_from_reconstruction(dataclasses.replace(room, keep=torch.zeros_like(room.keep)))
