"""Mirrors and windows: pixels and points still meet, and a change and its undoing is no change."""

import pytest
import torch

from distill3d.cache import CacheReader
from distill3d.errors import ConfigError
from distill3d.geometry.cameras import project_points
from distill3d.geometry.poses import transform_points
from distill3d.train.augment import crop, draw_window, mirror
from distill3d.train.config import SamplingConfig
from distill3d.train.samples import CacheDataset
from distill3d.types import Prediction, Views
from tests.train.helpers import make_cache, make_sample

SIZE = (28, 42)


@pytest.fixture
def labelled():
    views, target = make_sample(torch.Generator().manual_seed(3), 3, SIZE)
    skew = views.intrinsics.clone()
    skew[..., 0, 1], skew[..., 0, 2] = 1.5, 17.0
    target = Prediction(**{**vars(target), "intrinsics": skew, "normal": torch.randn(1, 3, *SIZE, 3)})
    # Points that project to their own pixel, through the skewed camera.
    row, column = torch.meshgrid(*(torch.arange(length, dtype=torch.float32) for length in SIZE), indexing="ij")
    depth = target.pointmap_camera[..., 2]
    y = (row - skew[0, 0, 1, 2]) / skew[0, 0, 1, 1]
    x = (column - skew[0, 0, 0, 2] - 1.5 * y) / skew[0, 0, 0, 0]
    local = torch.stack([x * depth, y * depth, depth], dim=-1)
    world = transform_points(target.world_from_camera, local)
    target = Prediction(**{**vars(target), "pointmap_camera": local, "pointmap_world": world})
    return Views(**{**vars(views), "intrinsics": skew}), target, torch.rand(1, 3, *SIZE) > 0.1


def require_consistent(views: Views, target: Prediction) -> None:
    """Every point projects to its pixel, and the pose takes the local map to the world map."""
    height, width = views.images.shape[-2:]
    pixels, _ = project_points(target.pointmap_camera, target.intrinsics)
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    assert torch.allclose(pixels[..., 0], column.float().expand(pixels.shape[:-1]), atol=1e-3)
    assert torch.allclose(pixels[..., 1], row.float().expand(pixels.shape[:-1]), atol=1e-3)
    assert torch.allclose(
        transform_points(target.world_from_camera, target.pointmap_camera), target.pointmap_world, atol=1e-5
    )
    assert torch.allclose(torch.linalg.det(target.world_from_camera), torch.ones(1, 3), atol=1e-5)
    assert torch.equal(views.intrinsics, target.intrinsics)


def test_a_mirrored_sample_is_a_sample_of_the_mirrored_world(labelled):
    views, target, valid = labelled
    require_consistent(views, target)
    other_views, other, other_valid = mirror(*labelled)
    require_consistent(other_views, other)
    assert torch.equal(other_views.images[..., 0], views.images[..., -1])
    assert torch.equal(other_valid[..., 5], valid[..., SIZE[1] - 6])
    assert torch.equal(other.confidence_world[..., 0], target.confidence_world[..., -1])
    point, mirrored = target.pointmap_world[0, 1, 4, 9], other.pointmap_world[0, 1, 4, SIZE[1] - 10]
    assert torch.equal(mirrored, point * torch.tensor([-1.0, 1, 1]))
    assert torch.equal(other.normal[..., 0], -target.normal.flip(3)[..., 0])


def test_a_mirror_of_a_mirror_is_what_was_there(labelled):
    for found, expected in zip(mirror(*mirror(*labelled)), labelled, strict=True):
        if isinstance(expected, torch.Tensor):
            assert torch.equal(found, expected)
            continue
        for name, value in vars(expected).items():
            if value is not None:
                assert torch.allclose(getattr(found, name), value, atol=1e-5), name


def test_a_window_moves_the_centres_and_nothing_else(labelled):
    views, target, valid = labelled
    corners = [(0, 0), (14, 5), (3, 14)]
    other_views, other, other_valid = crop(*labelled, (14, 28), corners)
    assert other_views.images.shape == (1, 3, 3, 14, 28)
    require_consistent(other_views, other)
    for view, (row, column) in enumerate(corners):
        place = (0, view, slice(row, row + 14), slice(column, column + 28))
        assert torch.equal(other.pointmap_world[0, view], target.pointmap_world[place])
        assert torch.equal(other.normal[0, view], target.normal[place])
        assert torch.equal(other_valid[0, view], valid[place])
        assert torch.equal(other_views.images[0, view], views.images[0, view][:, place[2], place[3]])
    assert torch.equal(other.world_from_camera, target.world_from_camera)


def test_windows_keep_to_their_share_aspect_and_multiple():
    generator = torch.Generator().manual_seed(0)
    sizes = [
        draw_window((224, 518), share=0.5, aspect=(0.5, 2.0), multiple=14, generator=generator) for _ in range(200)
    ]
    for height, width in sizes:
        assert height % 14 == width % 14 == 0
        assert 14 <= height <= 224
        assert 14 <= width <= 518
    ratios = torch.tensor([width / height for height, width in sizes])
    assert ratios.min() < 0.6
    assert ratios.max() > 1.7
    whole = [draw_window((224, 518), share=0.5, aspect=None, multiple=14, generator=generator) for _ in range(200)]
    areas = torch.tensor([height * width / (224 * 518) for height, width in whole])
    assert areas.min() > 0.45
    assert areas.max() > 0.9
    assert draw_window((10, 40), share=0.5, aspect=None, multiple=14, generator=generator)[0] == 10  # too small to cut


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"), samples=5, views=4, size=(42, 56))


def open_batches(cache, **changes):
    reader = CacheReader(cache)
    return CacheDataset(reader, reader.keys(), SamplingConfig(**changes), views=3, batch=2, seed=7)


def test_batches_are_mirrored_and_cut_as_asked_and_repeat(cache):
    changes = {"flip": 0.5, "crop": 0.3, "aspect": (0.7, 1.4), "color_jitter": 0.0}
    one, two, plain = (
        open_batches(cache, **changes),
        open_batches(cache, **changes),
        open_batches(cache, color_jitter=0.0),
    )
    shapes, mirrored = set(), 0
    for number in range(9):
        batch, same, whole = one[number], two[number], plain[number]
        assert torch.equal(batch.views.images, same.views.images)
        assert torch.equal(batch.target.pointmap_world, same.target.pointmap_world)
        assert batch.keys == whole.keys  # the same samples, whatever is done to them
        moved = transform_points(batch.target.world_from_camera, batch.target.pointmap_camera)
        assert torch.allclose(moved, batch.target.pointmap_world, atol=5e-3)
        pixels, _ = project_points(batch.target.pointmap_camera, batch.views.intrinsics)
        columns = torch.arange(pixels.shape[3]).float().expand(pixels.shape[:-1])
        assert torch.allclose(pixels[..., 0], columns, atol=0.1)
        shapes.add(tuple(batch.valid.shape[-2:]))
        # Cameras stand to the right of the first; a mirror puts them to its left.
        signs = whole.target.world_from_camera[:, 1, 0, 3] * batch.target.world_from_camera[:, 1, 0, 3]
        mirrored += int((signs < 0).sum())
    assert len(shapes) > 2
    assert 2 < mirrored < 16


def test_reading_only_the_chosen_views_changes_nothing(cache, monkeypatch):
    kept, fresh = open_batches(cache, flip=0.5), open_batches(cache, flip=0.5, memory_mb=0)
    fresh[0]
    asked = []
    load = CacheReader.load
    monkeypatch.setattr(
        CacheReader, "load", lambda self, key, views=None: asked.append(views) or load(self, key, views=views)
    )
    for number in (1, 2):
        for name in ("images", "world_from_camera"):
            assert torch.equal(getattr(fresh[number].views, name), getattr(kept[number].views, name))
        assert torch.equal(fresh[number].target.pointmap_world, kept[number].target.pointmap_world)
    assert any(views is not None and len(views) == 3 for views in asked)


@pytest.mark.parametrize("bad", [{"flip": 2.0}, {"crop": 0.0}, {"aspect": (2.0, 1.0)}, {"crop_multiple": 0}])
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ConfigError, match=f"data.{next(iter(bad))} is"):
        SamplingConfig(**bad)
