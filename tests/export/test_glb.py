import dataclasses
import json
import struct

import numpy as np
import pytest
import trimesh

from distill3d.errors import OutputError
from distill3d.export.cloud import gather_cloud
from distill3d.export.glb import linear_colors, write_glb
from distill3d.export.upright import gltf_from_world
from tests.export.synthetic import room_reconstruction


@pytest.fixture(scope="module")
def room():
    return room_reconstruction(3, 20, 30)


def document_of(data: bytes) -> tuple[dict, bytes]:
    magic, version, length = struct.unpack_from("<III", data)
    assert (magic, version, length) == (0x46546C67, 2, len(data))
    size, kind = struct.unpack_from("<II", data, 12)
    assert kind == 0x4E4F534A
    body_size, body_kind = struct.unpack_from("<II", data, 20 + size)
    assert body_kind == 0x004E4942
    assert 28 + size + body_size == len(data)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def test_trimesh_opens_it_upright_with_all_points(room, tmp_path):
    scene = trimesh.load(write_glb(tmp_path / "points.glb", room))
    cloud = gather_cloud(room)
    matrix = gltf_from_world(room.prediction.world_from_camera[0].double().numpy())
    node = next(name for name in scene.graph.nodes_geometry if scene.graph[name][1] == "points")
    transform, name = scene.graph[node]
    np.testing.assert_allclose(transform, matrix, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(scene.geometry[name].vertices, dtype=np.float32), cloud.points)
    linear = (linear_colors(cloud.colors) * 255).round()
    np.testing.assert_allclose(np.asarray(scene.geometry[name].colors)[:, :3], linear, atol=1)
    # The floor (y = 1.3 below the cameras' -0.3 in the room) lies below the cameras once it is upright.
    upright = cloud.points @ matrix[:3, :3].T
    cameras = room.prediction.world_from_camera[0, :, :3, 3].numpy() @ matrix[:3, :3].T
    assert np.ptp(cameras[:, 1]) < 1e-4
    assert upright[:, 1].min() - cameras[0, 1] == pytest.approx(-1.6, abs=1e-3)


def test_colours_are_linear_and_come_back_as_the_photo(room, tmp_path):
    document, body = document_of(write_glb(tmp_path / "points.glb", room).read_bytes())
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    accessor = document["accessors"][attributes["COLOR_0"]]
    view = document["bufferViews"][accessor["bufferView"]]
    raw = body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    linear = np.frombuffer(raw, "<f4").reshape(-1, 3)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_array_equal((srgb * 255).round().astype(np.uint8), gather_cloud(room).colors)
    assert "KHR_materials_unlit" in document["extensionsUsed"]


def test_all_256_grey_levels_survive_the_linear_step():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    assert len(np.unique(linear_colors(ramp)[:, 0])) == 256


def test_every_view_has_a_frustum_and_a_camera_that_sees_what_the_photo_saw(room, tmp_path):
    document, _ = document_of(write_glb(tmp_path / "points.glb", room).read_bytes())
    nodes = {node["name"]: node for node in document["nodes"]}
    for index, name in enumerate(room.names):
        assert f"frustum {name}" in nodes
        world_from_gltf_camera = np.array(nodes[name]["matrix"]).reshape(4, 4).T
        perspective = document["cameras"][nodes[name]["camera"]]["perspective"]
        # Project the centre of a pixel near the lower right corner by glTF's rules.
        point = np.append(room.prediction.pointmap_world[0, index, 18, 27].numpy(), 1)
        x, y, z, _ = np.linalg.inv(world_from_gltf_camera) @ point
        assert z < 0
        half = np.tan(perspective["yfov"] / 2)
        ndc = np.array([x / -z / (half * perspective["aspectRatio"]), y / -z / half])
        np.testing.assert_allclose(ndc, [(27.5 / 30) * 2 - 1, 1 - (18.5 / 20) * 2], atol=1e-4)


def test_accessor_bounds_are_those_of_the_points(room, tmp_path):
    document, _ = document_of(write_glb(tmp_path / "points.glb", room, max_points=60).read_bytes())
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert accessor["count"] == 60
    np.testing.assert_array_equal(np.float32(accessor["min"]), gather_cloud(room, max_points=60).points.min(axis=0))


def test_buffers_are_aligned_and_inside_the_file(room, tmp_path):
    document, body = document_of(write_glb(tmp_path / "points.glb", room, max_points=61).read_bytes())
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= len(body)


def test_missing_cameras_are_an_error(room, tmp_path):
    blind = dataclasses.replace(room, prediction=dataclasses.replace(room.prediction, intrinsics=None))
    with pytest.raises(OutputError, match="no cameras"):
        write_glb(tmp_path / "points.glb", blind)
