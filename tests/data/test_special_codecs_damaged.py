"""Encodings and camera files of single data sets: damaged bytes give a result or a DataError, and nothing else."""

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from distill3d.data import datasets
from distill3d.data.camera_files import read_mvsnet_camera, read_numbers, read_pose
from distill3d.data.codecs import decode
from distill3d.data.datasets.co3d import stream_list
from distill3d.data.datasets.sintel import read_cam
from distill3d.data.depth_stack import index_depth_stack
from distill3d.data.listing import read_part
from distill3d.data.refs import Span, codec
from distill3d.errors import DataError


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def hdf5(**arrays):
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return buffer.getvalue()


def shard():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        picture = png(np.zeros((4, 6, 3), np.uint8))
        member = tarfile.TarInfo("./sa_7.jpg")
        member.size = len(picture)
        tar.addfile(member, io.BytesIO(picture))
    return buffer.getvalue()


def refuse(skipped):
    raise DataError(skipped.reason)


CAMERA = ("extrinsic\n" + "1 0 0 0\n" * 4 + "\nintrinsic\n" + "1 0 0\n" * 3 + "\n0.5 0.1\n").encode()
MASK = np.full((6, 8), 255, np.uint8)
READERS = {
    "sevenscenes": (
        lambda: png(np.full((6, 8), 2000, np.uint16)),
        lambda path: decode("DEPTH_CODECS", "sevenscenes", Span(path)),
    ),
    "nyuv2": (
        lambda: hdf5(images=np.zeros((2, 3, 8, 6), np.uint8)),
        lambda path: decode("IMAGE_CODECS", codec("nyuv2", index=1), Span(path)),
    ),
    "hypersim": (
        lambda: hdf5(dataset=np.ones((6, 8, 3), np.float16)),
        lambda path: decode("IMAGE_CODECS", codec("hypersim", entity="absent.hdf5"), Span(path)),
    ),
    "all-masks": (lambda: png(MASK), lambda path: decode("MASK_CODECS", codec("all-masks", beside="file"), Span(path))),
    "eroded-mask": (
        lambda: png(MASK),
        lambda path: decode("MASK_CODECS", codec("eroded-mask", above=1, square=3, height=3, width=4), Span(path)),
    ),
    "depth.bin": (
        lambda: struct.pack("<I", 9) + b"123456789" + struct.pack("<I", 4) + b"abcd",
        lambda path: index_depth_stack(path, "file"),
    ),
    "shard": (shard, lambda path: list(datasets.get("sa1b").read(path, path.parent, datasets.ScanOptions(), refuse))),
    "annotations": (
        lambda: gzip.compress(b'[{"a": 1}, {"b": [2, 3]}]'),
        lambda path: list(stream_list(path)),
    ),
    "camera of MVSNet": (lambda: CAMERA, lambda path: read_part("camera", path, read_mvsnet_camera)),
    "pose": (lambda: b"1 0 0 0\n" * 4, lambda path: read_part("pose", path, read_pose)),
    "numbers": (lambda: b"# t x\n1 2\n3 4\n", lambda path: read_part("numbers", path, read_numbers)),
    "camera of Sintel": (
        lambda: struct.pack("<f21d", 202021.25, *range(21)),
        lambda path: read_part("camera", path, lambda file: read_cam(file.read_bytes())),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(READERS))
def test_damaged_bytes_give_our_error_or_a_result(kind, tmp_path):
    make, read = READERS[kind]
    whole, path = make(), tmp_path / "file"
    path.write_bytes(whole)
    assert read(path) is not None
    rng = np.random.default_rng(0)
    cuts = [whole[:length] for length in np.linspace(0, len(whole) - 1, 20).astype(int).tolist()]
    flips = []
    for _ in range(60):
        broken = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 600), rng.integers(1, 6)):
            broken[place] = rng.integers(256)
        flips.append(bytes(broken))
    reasons = []
    for data in (*cuts, *flips, rng.bytes(200)):
        path.write_bytes(data)
        try:
            read(path)
        except DataError as error:
            reasons.append(str(error))
    assert reasons
    assert all(str(path) in reason for reason in reasons)
