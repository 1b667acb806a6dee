import numpy as np
import pytest
import trimesh

from distill3d.export.cloud import gather_cloud
from distill3d.export.ply import VERTEX, encode_ply, write_ply
from tests.export.synthetic import room_reconstruction


@pytest.fixture(scope="module")
def room():
    return room_reconstruction(2, 20, 30)


def test_trimesh_reads_back_points_and_colours(room, tmp_path):
    path = write_ply(tmp_path / "points.ply", room)
    cloud = gather_cloud(room)
    read = trimesh.load(path)
    np.testing.assert_array_equal(np.asarray(read.vertices, dtype=np.float32), cloud.points)
    np.testing.assert_array_equal(np.asarray(read.colors)[:, :3], cloud.colors)


def test_the_file_holds_every_field_in_the_world_frame(room, tmp_path):
    data = write_ply(tmp_path / "points.ply", room, max_points=77).read_bytes()
    header, body = data.split(b"end_header\n", 1)
    assert b"comment axes: OpenCV (x right, y down, z forward)" in header
    vertices = np.frombuffer(body, dtype=VERTEX)
    cloud = gather_cloud(room, max_points=77)
    assert len(vertices) == 77
    np.testing.assert_array_equal(vertices["confidence"], cloud.confidence)
    np.testing.assert_array_equal(vertices["view"], cloud.view)
    np.testing.assert_array_equal(vertices["nz"], cloud.normal[:, 2])
    declared = [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property")]
    assert declared == list(VERTEX.names)


def test_a_line_break_in_a_comment_cannot_end_the_header(room):
    data = encode_ply(gather_cloud(room, max_points=5), comments=("evil\nend_header\nx",))
    assert data.count(b"\nend_header\n") == 1


def test_the_same_reconstruction_gives_the_same_bytes(room, tmp_path):
    first = write_ply(tmp_path / "a.ply", room, max_points=50).read_bytes()
    assert first == write_ply(tmp_path / "b.ply", room, max_points=50).read_bytes()
