import numpy as np
import pytest

from distill3d.data.ply import read_ply_points
from distill3d.errors import DataError
from distill3d.export.cloud import PointCloud
from distill3d.export.ply import encode_ply

POINTS = np.array([[1.5, -2.0, 3.25], [0.0, 1e-3, 4e5]])
HEADER = (
    "ply\nformat {}\ncomment x\nelement vertex 2\nproperty {} x\nproperty uchar red\nproperty {} y\nproperty {} z\n"
)
FACES = "element face 1\nproperty list uchar int vertex_indices\nend_header\n"


@pytest.mark.parametrize(
    ("form", "kind", "order"),
    [("binary_little_endian 1.0", "float", "<f4"), ("binary_big_endian 1.0", "double", ">f8")],
)
def test_binary_vertices_are_read_whatever_stands_behind_them(tmp_path, form, kind, order):
    fields = np.dtype([("x", order), ("red", "u1"), ("y", order), ("z", order)])
    rows = np.array([(x, 7, y, z) for x, y, z in POINTS], dtype=fields)
    path = tmp_path / "a.ply"
    path.write_bytes((HEADER.format(form, *[kind] * 3) + FACES).encode() + rows.tobytes() + b"\x03\0\0\0\0\0\0\0\0")
    np.testing.assert_allclose(read_ply_points(path), POINTS, rtol=1e-7)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="ends after 1 of 2 vertices"):
        read_ply_points(path)


def test_vertices_in_text_are_read(tmp_path):
    path = tmp_path / "a.ply"
    rows = "".join(f"{x} 7 {y} {z}\n" for x, y, z in POINTS)
    path.write_text(HEADER.format("ascii 1.0", *["float32"] * 3) + FACES + rows + "3 0 1 1\n")
    assert np.array_equal(read_ply_points(path), POINTS)
    path.write_text(path.read_text().replace("1.5", "one"))
    with pytest.raises(DataError, match="cannot be read"):
        read_ply_points(path)


def test_what_we_write_can_be_read(tmp_path):
    ones = np.ones(2)
    cloud = PointCloud(
        points=POINTS.astype(np.float32),
        colors=np.zeros((2, 3), np.uint8),
        confidence=ones.astype(np.float32),
        view=ones.astype(np.int64),
        normal=np.zeros((2, 3), np.float32),
    )
    (tmp_path / "a.ply").write_bytes(encode_ply(cloud))
    assert np.array_equal(read_ply_points(tmp_path / "a.ply"), POINTS.astype(np.float32))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"solid cube",
        b"ply\nformat ascii 1.0\nend_header\n",
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nend_header\n1 2\n",
        b"ply\nformat odd 1.0\nelement vertex 0\nproperty float x\nproperty float y\nproperty float z\nend_header\n",
        b"ply\nformat binary_little_endian 1.0\nelement face 1\nproperty list uchar int f\nelement vertex 1\n"
        b"property float x\nproperty float y\nproperty float z\nend_header\n" + bytes(40),
        b"ply\n" + b"comment\n" * 20000,
        b"ply\nformat ascii 1.0\nelement vertex 7\nproperty flo",
    ],
)
def test_anything_else_is_refused_in_words(tmp_path, content):
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(DataError, match=r"not a PLY|does not begin with vertices"):
        read_ply_points(tmp_path / "a.ply")
