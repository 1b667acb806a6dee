"""Whatever bytes a decoder is fed, it gives a map or a DataError: no crash, no hang, no memory for a false header."""

import io
import resource
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from distill3d.data.codecs import decode
from distill3d.data.refs import Ref, Span, codec
from distill3d.errors import DataError

DEPTH = np.linspace(0.5, 3, 12, dtype="<f4").reshape(3, 4)


def saved(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def png(array, **options):
    return saved(lambda buffer: Image.fromarray(array).save(buffer, "PNG", **options))


def log_png():
    text = PngImagePlugin.PngInfo()
    text.add_text("near", "0.5")
    text.add_text("far", "8")
    return png(np.arange(1, 13, dtype=np.uint16).reshape(3, 4) * 5000, pnginfo=text)


def deflated(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def hdf5():
    h5py = pytest.importorskip("h5py")

    def write(buffer):
        with h5py.File(buffer, "w") as file:
            file["depth"] = DEPTH

    return saved(write)


HUGE_NPY = b"\x93NUMPY\x01\x00" + struct.pack("<H", 80)
HUGE_NPY += b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999, 999999)}".ljust(80)
RAW = {"dtype": "<f4", "height": 3, "width": 4}
SAMPLES = {
    "png16": ("png16?scale=0.001", lambda: png((DEPTH * 1000).astype(np.uint16))),
    "float16-png": ("float16-png", lambda: png(DEPTH.astype(np.float16).view(np.uint16))),
    "float32-png": ("float32-png", lambda: png(DEPTH[..., None].view(np.uint8)[..., [2, 1, 0, 3]])),
    "log-png": ("log-png", log_png),
    "npy": ("npy", lambda: saved(lambda buffer: np.save(buffer, DEPTH))),
    "npz": (codec("npz", key="d"), lambda: saved(lambda buffer: np.savez_compressed(buffer, d=DEPTH))),
    "hdf5": (codec("hdf5", key="depth"), hdf5),
    "pfm": ("pfm", lambda: b"Pf\n4 3\n-1\n" + DEPTH[::-1].tobytes()),
    "dpt": ("dpt", lambda: struct.pack("<fii", 202021.25, 4, 3) + DEPTH.tobytes()),
    "colmap": ("colmap", lambda: b"4&3&1&" + DEPTH.tobytes()),
    "raw": (codec("raw", **RAW), DEPTH.tobytes),
    "raw-deflate": (codec("raw", **RAW, packed="deflate"), lambda: deflated(DEPTH.tobytes())),
}


@pytest.fixture(params=SAMPLES)
def sample(request, tmp_path):
    spelled, make = SAMPLES[request.param]
    path = tmp_path / "depth.bin"
    path.write_bytes(make())
    return spelled, path


def test_the_whole_file_is_read(sample):
    spelled, path = sample
    depth = decode("DEPTH_CODECS", spelled, Span(path))
    assert depth.dtype == np.float32
    assert depth.shape == (3, 4)
    if spelled != "log-png":
        assert np.abs(depth - DEPTH).max() < 2e-3


def test_the_same_bytes_within_another_file_are_read(sample, tmp_path):
    spelled, path = sample
    data = path.read_bytes()
    (tmp_path / "archive.tar").write_bytes(b"x" * 513 + data + b"y" * 99)
    span = Ref("archive.tar", spelled, 513, len(data)).within(tmp_path)
    assert np.array_equal(decode("DEPTH_CODECS", spelled, span), decode("DEPTH_CODECS", spelled, Span(path)))


def why_not(spelled, path):
    """What the error says, if there is one; a map is checked."""
    try:
        depth = decode("DEPTH_CODECS", spelled, Span(path))
    except DataError as error:
        return str(error)
    assert depth.dtype == np.float32
    assert np.isfinite(depth).all()
    assert (depth >= 0).all()
    return None


@pytest.mark.filterwarnings("ignore")
def test_a_file_cut_anywhere_gives_our_error_or_a_map(sample):
    spelled, path = sample
    data = path.read_bytes()
    for length in np.linspace(0, len(data) - 1, 40).astype(int).tolist():
        path.write_bytes(data[:length])
        reason = why_not(spelled, path)
        assert reason is None or (str(path) in reason and "Copy or make it again" in reason)


@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_give_our_error_or_a_map(sample):
    spelled, path = sample
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    start = time.monotonic()
    for _ in range(120):
        broken = bytearray(data)
        for place in rng.integers(0, min(len(data), 200), rng.integers(1, 6)):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        why_not(spelled, path)
    assert time.monotonic() - start < 60  # no header makes it hang


@settings(max_examples=25)
@given(st.binary(max_size=300))
def test_noise_gives_our_error_or_a_map(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("noise") / "noise"
    path.write_bytes(data)
    for spelled, _ in SAMPLES.values():
        why_not(spelled, path)


@pytest.mark.parametrize(
    ("spelled", "data"),
    [
        ("pfm", b"Pf\n99999999 99999999\n-1\n"),
        ("dpt", struct.pack("<fii", 202021.25, 2**31 - 1, 2**31 - 1)),
        ("colmap", b"999999999&999999999&1&"),
        ("colmap", b"-4&-3&1&" + DEPTH.tobytes()),
        ("npy", HUGE_NPY),
        (codec("raw", **RAW, packed="deflate", index=10**9), deflated(DEPTH.tobytes())),
    ],
)  # fmt: skip
def test_a_header_that_promises_the_moon_costs_no_memory(tmp_path, spelled, data):
    path = tmp_path / "d"
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="Cannot read the depth map"):
        decode("DEPTH_CODECS", spelled, Span(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_deflate_bomb_is_unpacked_piece_by_piece(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(deflated(bytes(200_000_000)))
    assert path.stat().st_size < 250_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    depth = decode("DEPTH_CODECS", codec("raw", **RAW, packed="deflate"), Span(path))
    assert (depth == 0).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_depth_that_is_no_depth_says_what_it_is(tmp_path):
    preview = tmp_path / "preview.png"
    preview.write_bytes(png(np.zeros((3, 4, 3), np.uint8)))
    with pytest.raises(DataError, match="a picture of kind RGB, expected 16-bit gray: it may be a preview"):
        decode("DEPTH_CODECS", "png16", Span(preview))
    three = tmp_path / "three.npy"
    np.save(three, np.zeros((3, 4, 3), np.float32))
    with pytest.raises(DataError, match="expected one map"):
        decode("DEPTH_CODECS", "npy", Span(three))
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="expected numbers"):
        decode("DEPTH_CODECS", "npy", Span(pickled))
    with pytest.raises(DataError, match="there is no such file"):
        decode("DEPTH_CODECS", "npy", Span(tmp_path / "none.npy"))
    with pytest.raises(DataError, match="no depth codec 'jpeg-xl'; this distill3d knows colmap"):
        decode("DEPTH_CODECS", "jpeg-xl", Span(three))
