"""The path from real photos to a reconstruction, with a network that has learned nothing: masks and shapes only."""

import shutil
from pathlib import Path

import pytest
import torch

from distill3d import models
from distill3d.data.fit import ImageFit
from distill3d.data.images import load_views
from distill3d.infer.reconstruct import reconstruct


@pytest.fixture(scope="module")
def student():
    spec = models.get("distill3r")
    torch.manual_seed(0)
    return spec.build(spec.variants["tiny"])


def test_portrait_and_landscape_photos_and_a_broken_file_become_one_reconstruction(shared_data, student, tmp_path):
    photos = [shared_data / "photos" / name for name in ("buddha_00052.jpg", "china.jpg", "Tree.jpg", "astronaut.jpg")]
    for photo in photos:
        shutil.copy(photo, tmp_path / photo.name)
    (tmp_path / "broken.jpg").write_bytes(b"this is no photo")
    loaded = load_views([*sorted(tmp_path.iterdir())], ImageFit(long_side=112))
    assert [Path(skipped.path).name for skipped in loaded.skipped] == ["broken.jpg"]
    found = reconstruct(student, loaded.views, names=loaded.names, confidence_percentile=30)
    assert found.names == tuple(loaded.names)
    assert len(found.names) == 4
    assert loaded.views.valid is not None
    assert not loaded.views.valid.all()  # the photos have different shapes, so there is padding
    assert not (found.keep & ~loaded.views.valid).any()
    assert 0 < found.keep.float().mean() <= 0.7
    assert found.prediction.world_from_camera is not None
    assert torch.equal(found.prediction.world_from_camera[:, 0], torch.eye(4)[None])


def test_more_photos_than_a_window_holds_are_reconstructed_in_windows(shared_data, student):
    photos = sorted((shared_data / "buddha").rglob("*.jpg"))
    loaded = load_views(photos, ImageFit(long_side=56))
    found = reconstruct(student, loaded.views, names=loaded.names, max_views=6, head_chunk=2)
    assert len(found.info["windows"]) > 1
    assert found.prediction.pointmap_world is not None
    assert found.prediction.pointmap_world.shape[1] == len(photos)
    assert torch.isfinite(found.prediction.pointmap_world).all()
