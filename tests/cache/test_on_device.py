"""Decoding in torch gives what the codec gives, up to rounding, on the CPU and on an accelerator where there is one."""

import numpy as np
import pytest
import torch

from distill3d.cache import CacheHeader, CacheReader, CacheWriter
from distill3d.cache.codec import get_codec
from distill3d.cache.on_device import decode_on
from distill3d.errors import CacheError
from tests.cache.samples import make_sample

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIZE = (67, 74)


def smooth(rng, *, size=SIZE, low=1.0, high=4.0):
    """A positive map with hills, an edge and some noise."""
    row, column = np.mgrid[: size[0], : size[1]]
    hills = np.sin(row / 9) + np.cos(column / 7) + 3 * (column > size[1] // 2) + 0.01 * rng.standard_normal(size)
    return (low + (high - low) * (hills + 2) / 7).astype(np.float32)


def views_of(rng, kinds):
    """A view of each kind, as arrays before the codec."""
    for kind in kinds:
        size = SIZE[::-1] if kind == "portrait" else SIZE
        z = smooth(rng, size=size)
        row, column = np.mgrid[: size[0], : size[1]]
        local = np.stack([(column - 37) / 60 * z, (row - 33) / 60 * z, z], axis=-1).astype(np.float32)
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        rotation *= np.sign(np.linalg.det(rotation))
        world = (1.7 * local.astype(np.float64) @ rotation.T + rng.standard_normal(3)).astype(np.float32)
        arrays = {"prediction.pointmap_camera": local, "prediction.pointmap_world": world}
        arrays["prediction.confidence_camera"] = 1 + smooth(rng, size=size)
        if kind == "own world":
            arrays["prediction.pointmap_world"] = world * (1 + 0.05 * rng.standard_normal((*size, 1))).astype(
                np.float32
            )
        if kind == "holes":
            local[:5, :5] = np.nan
            world[:5, :5] = np.inf
            arrays["prediction.confidence_camera"][7] = 0
            arrays["prediction.valid"] = np.isfinite(local[..., 0])
        if kind == "monocular":
            normal = rng.standard_normal((*size, 3)).astype(np.float32)
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
            depth = smooth(rng, size=size)
            depth[:3] = 0
            arrays = {"prediction.depth": depth, "prediction.normal": normal}
        if kind == "repeats":
            arrays["prediction.depth"] = np.ascontiguousarray(local[..., 2])
            arrays["prediction.confidence_world"] = arrays["prediction.confidence_camera"].copy()
        if kind == "far":  # needs 32 bits
            arrays = {"prediction.depth": np.exp(np.linspace(-30, 30, z.size)).reshape(size).astype(np.float32)}
        yield arrays


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "kinds",
    [
        ["plain"] * 3,
        ["plain", "holes", "plain", "own world"],
        ["monocular"] * 2,
        ["repeats"] * 2,
        ["far"],
        ["portrait"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("bound", [2.0**-11, 2.0**-15])
def test_the_same_labels_as_one_by_one(device, kinds, bound):
    codec = get_codec("compact", {"bound": bound})
    blobs = [codec.encode(arrays).data for arrays in views_of(np.random.default_rng(0), kinds)]
    expected = [codec.decode(blob) for blob in blobs]
    found = decode_on(device, blobs)
    shared = set.intersection(*map(set, expected))
    assert set(found) == shared
    for name in shared:
        one_by_one = np.stack([part[name] for part in expected])
        assert found[name].device.type == device
        assert found[name].shape == one_by_one.shape
        np.testing.assert_allclose(found[name].cpu().numpy(), one_by_one, rtol=3e-6, atol=3e-6, err_msg=name)


def test_a_damaged_blob_is_an_error():
    codec = get_codec("compact")
    blob = codec.encode(next(views_of(np.random.default_rng(0), ["plain"]))).data
    with pytest.raises(CacheError, match="damaged"):
        decode_on("cpu", [blob, blob[:200]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("codec", ["compact", "exact"])
def test_a_sample_is_loaded_on_the_accelerator(tmp_path, codec):
    views, prediction = make_sample(views=3)
    with CacheWriter(tmp_path / "c", codec=codec, header=CacheHeader()) as writer:
        writer.add("a", views, prediction)
    reader = CacheReader(tmp_path / "c")
    here, there = reader.load("a"), reader.load("a", device="cuda")
    assert there.views.images.is_cuda
    assert there.valid.is_cuda
    torch.testing.assert_close(there.prediction.pointmap_world.cpu(), here.prediction.pointmap_world)
    assert torch.equal(there.valid.cpu(), here.valid)
