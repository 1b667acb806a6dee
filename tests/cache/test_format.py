"""docs/cache.md is enough: a reader written from it alone finds what ours finds."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from distill3d.cache import CacheHeader, CacheReader, CacheWriter
from distill3d.types import Prediction, Views

from . import independent_reader
from .samples import make_sample
from .test_compact import as_world, scene


def test_the_independent_reader_is_independent():
    tree = ast.parse(Path(independent_reader.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    assert names == {"json", "struct", "tarfile", "numpy", "zstandard"}


def network_sample() -> tuple[Views, Prediction]:
    """Maps of every kind: noise, sky, a point behind the camera, normals, a world map that is no similarity."""
    rng = np.random.default_rng(0)
    local, rotation, camera = scene(37, 50, noise=3e-3, rays=1e-3)
    other, _, _ = scene(37, 50, noise=3e-3, seed=4)
    local[:5], local[9, 9] = np.nan, -local[9, 9]
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3], pose[:3, 3] = rotation, camera
    normal = rng.normal(size=(37, 50, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    depth = np.exp(rng.normal(size=(37, 50)))
    depth[3, :20] = 0
    confidence = 1 + np.exp(rng.normal(size=(37, 50)))
    confidence[0, 0] = np.nan
    maps = {
        "pointmap_camera": local,
        "pointmap_world": as_world(other, rotation, camera),
        "world_from_camera": pose,
        "normal": normal,
        "depth": depth,
        "confidence_world": confidence,
        "confidence_camera": rng.normal(size=(37, 50)),
        "valid": depth > 0.5,
    }
    tensors = {name: torch.from_numpy(np.asarray(value))[None, None] for name, value in maps.items()}
    floats = {name: value if value.dtype == torch.bool else value.float() for name, value in tensors.items()}
    return Views(images=torch.rand(1, 1, 3, 37, 50)), Prediction(**floats)


@pytest.mark.parametrize("codec", ["exact", "compact"])
def test_a_reader_from_the_page_alone_finds_the_same(tmp_path, codec):
    samples = {"all/kinds": network_sample(), "plain": make_sample(2, height=21, width=13)}
    with CacheWriter(tmp_path / "c", codec=codec, header=CacheHeader(images="jpeg")) as writer:
        for key, sample in samples.items():
            writer.add(key, *sample)
    reader = CacheReader(tmp_path / "c")
    found = independent_reader.read_shard(tmp_path / "c" / "shard-00000.tar")
    assert set(found) == set(samples)
    for key, views in found.items():
        ours = reader.load(key)
        assert len(views) == ours.views.images.shape[1]
        for view, arrays in enumerate(views):
            assert arrays["photo"][:2] == b"\xff\xd8"
            expected = {
                f"{kind}.{name}": value[0] if value.ndim == 1 else value[0, view]
                for kind, record in (("prediction", ours.prediction), ("views", ours.views))
                for name, value in vars(record).items()
                if value is not None and name != "images"
            }
            assert set(expected) == {name for name in arrays if not name.startswith(("similarity", "photo"))}
            for name, value in expected.items():
                assert np.allclose(arrays[name], value.numpy(), rtol=1e-5, atol=1e-6, equal_nan=True), name
