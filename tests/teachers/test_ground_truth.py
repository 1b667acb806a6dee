import dataclasses

import pytest
import torch

from distill3d import teachers
from distill3d.cache import CacheReader, CacheWriter
from distill3d.data.render.caster import render
from distill3d.data.render.place import place_cameras, place_scene
from distill3d.errors import ConfigError, DataError
from distill3d.geometry.cameras import project_points
from distill3d.geometry.poses import invert_pose, transform_points
from distill3d.types import collate, select_views

from .views import wall_views


@pytest.fixture(scope="module")
def place():
    cameras = place_cameras((84, 84), num_train=24, num_test=8, seed=3)
    chosen = slice(0, 24, 3)
    return render(place_scene(), cameras.world_from_camera[None, chosen], cameras.intrinsics[None, chosen], (84, 84))


def test_points_project_back_to_their_pixels_from_every_camera():
    views = wall_views()
    found = teachers.load("ground-truth").predict(views)
    pixels, depth = project_points(found.pointmap_camera[0], views.intrinsics[0])
    grid = torch.stack(torch.meshgrid(torch.arange(14.0), torch.arange(28.0), indexing="ij")[::-1], dim=-1)
    valid = found.valid[0]
    assert torch.allclose(pixels[valid], grid.expand_as(pixels)[valid], atol=1e-3)
    assert torch.allclose(depth[valid], views.depth[0][valid])
    # The points of all views lie on one plane of the world, which is the camera of view 0.
    points = found.pointmap_world[0][valid].double()
    centred = points - points.mean(dim=0)
    assert torch.linalg.svdvals(centred)[2] < 1e-3 * torch.linalg.svdvals(centred)[0]
    back = transform_points(invert_pose(found.world_from_camera[0]), found.pointmap_world[0])
    assert torch.allclose(back, found.pointmap_camera[0], atol=1e-4)
    assert torch.equal(found.world_from_camera[0, 0], torch.eye(4))
    assert torch.equal(found.pointmap_world[0, 0], found.pointmap_camera[0, 0])


def test_pixels_without_depth_are_not_valid_and_stay_finite():
    views = wall_views()
    views.depth[0, 1, 1, 1] = float("nan")
    views.depth[0, 1, 1, 2] = float("inf")
    found = teachers.load("ground-truth").predict(views)
    assert not found.valid[0, :, ::3].any()
    assert not found.valid[0, 1, 1, 1:3].any()
    assert found.valid[0, 0, 1].all()
    assert found.pointmap_world.isfinite().all()
    assert (found.confidence_world == found.confidence_world[0, 0, 0, 0]).all()


@pytest.mark.parametrize("field", ["depth", "world_from_camera", "intrinsics"])
def test_views_without_geometry_are_refused_with_words(field):
    views = dataclasses.replace(wall_views(), **{field: None})
    with pytest.raises(DataError, match=rf"these views lack {field}\. Use a rendered or annotated data set"):
        teachers.load("ground-truth").predict(views)


def test_noise_moves_points_along_their_rays_alone():
    views = wall_views()
    exact, noisy = (teachers.load("ground-truth", noise=noise).predict(views) for noise in (0.0, 1.0))
    valid = exact.valid
    ratio = noisy.pointmap_camera[valid] / exact.pointmap_camera[valid]
    assert torch.allclose(ratio[:, 0], ratio[:, 2], atol=1e-4)
    assert 0.005 < (ratio[:, 2] - 1).abs().mean() < 0.3
    assert torch.equal(noisy.valid, exact.valid)
    assert torch.equal(noisy.world_from_camera, exact.world_from_camera)


def test_noise_depends_on_seed_and_photos_alone():
    views, others = wall_views(seed=0), wall_views(seed=1)
    teacher = teachers.load("ground-truth", noise=1.0)
    alone = teacher.predict(views)
    batched = teacher.predict(collate([others, views]))
    assert torch.equal(batched.pointmap_world[1:], alone.pointmap_world)
    assert torch.equal(batched.confidence_world[1:], alone.confidence_world)
    other = teachers.load("ground-truth", noise=1.0, seed=1).predict(views)
    assert not torch.equal(other.pointmap_world, alone.pointmap_world)


def relative_error(views, noise):
    exact, noisy = (teachers.load("ground-truth", noise=strength).predict(views) for strength in (0.0, noise))
    valid = exact.valid
    error = noisy.pointmap_camera[..., 2][valid] / exact.pointmap_camera[..., 2][valid] - 1
    return error, noisy.confidence_world[valid]


def test_a_fifth_of_a_room_is_unsure_and_the_rest_is_good(place):
    groups = [select_views(place, chosen) for chosen in ([0, 1, 2, 3], [4, 5, 6, 7], [0, 2, 4, 6], [1, 3, 5, 7])]
    error, confidence = (torch.cat(parts) for parts in zip(*(relative_error(g, 1.0) for g in groups), strict=True))
    unsure = confidence < 3
    assert 0.15 < unsure.float().mean() < 0.25
    assert 4.8 < confidence.mean() < 6.5
    assert confidence.min() > 1
    # The confident points are right on average and to 5 %; the others are wrong, and mostly outward.
    assert error[~unsure].abs().mean() < 0.05
    assert error[~unsure].mean().abs() < 0.01
    glare = confidence < 1.6
    assert 0.08 < glare.float().mean() < 0.22
    assert 0.25 < error[glare].mean() < 0.55
    assert 0.25 < error[glare].std() < 0.7


def test_confidence_orders_the_errors(place):
    error, confidence = relative_error(select_views(place, [0, 1, 2, 3]), 1.0)
    bounds = [1.0, 1.7, 3.0, 4.5, 6.5, 100.0]
    sizes = [error[(confidence >= low) & (confidence < high)].abs().mean() for low, high in zip(bounds, bounds[1:])]  # noqa: B905, RUF007
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 8 * sizes[-1]


def test_twice_the_noise_is_twice_the_error(place):
    views = select_views(place, [0, 1, 2, 3])
    (one, sure), (two, unsure) = relative_error(views, 1.0), relative_error(views, 2.0)
    good = sure > 4
    assert torch.allclose(two[good].std() / one[good].std(), torch.tensor(2.0), atol=0.3)
    assert torch.allclose((unsure - 1)[good], (sure - 1)[good] / 2, atol=1e-3)


def test_errors_are_smooth_in_space(place):
    views = select_views(place, [0, 1])
    exact, noisy = (teachers.load("ground-truth", noise=strength).predict(views) for strength in (0.0, 1.0))
    error = noisy.pointmap_camera[..., 2] / exact.pointmap_camera[..., 2] - 1
    sure = (noisy.confidence_world > 5) & exact.valid
    pairs = sure[..., 1:] & sure[..., :-1]
    step = (error[..., 1:] - error[..., :-1])[pairs]
    assert step.std() < 0.4 * error[sure].std()


def test_the_labels_reach_the_cache_as_similarities(tmp_path):
    views = wall_views(height=28)
    found = teachers.load("ground-truth", noise=1.0).predict(views)
    with CacheWriter(tmp_path / "c") as writer:
        writer.add("a", views, found)
    sample = CacheReader(tmp_path / "c").load("a")
    assert sample.similarity is not None
    assert torch.equal(sample.valid, found.valid)
    assert torch.allclose(sample.prediction.pointmap_world, found.pointmap_world, atol=0.02)


def test_impossible_noise_and_options_are_refused():
    with pytest.raises(ConfigError, match="noise is -1"):
        teachers.load("ground-truth", noise=-1.0)
    with pytest.raises(ConfigError, match="does not take these options"):
        teachers.load("ground-truth", colour="red")
