import dataclasses

import pytest
import torch

from distill3d.errors import ConfigError, GeometryError
from distill3d.geometry.cameras import project_points
from distill3d.geometry.poses import rotation_angle, transform_points
from distill3d.infer.pairs import make_pairs
from distill3d.infer.pairwise import AlignmentConfig, align_pairs, predict_views
from distill3d.infer.reconstruct import reconstruct
from distill3d.models.dust3r import Dust3R
from distill3d.types import Views, collate, map_tensors
from tests.infer.exact import FOCAL, Place
from tests.infer.test_pairs import TINY, exact_pair

START = AlignmentConfig(iterations=0)
QUICK = AlignmentConfig(iterations=60)


def pairs_of(place, graph="complete", noise=0.0, **settings):
    pairs = make_pairs(place.local.shape[1], graph, **settings)
    rng = torch.Generator().manual_seed(5)
    sizes = 0.5 + torch.rand(len(pairs), generator=rng)
    sizes = sizes / sizes.log().mean().exp()
    found = collate([exact_pair(place, *pair, float(size)) for pair, size in zip(pairs, sizes, strict=True)])
    points = found.pointmap_world
    points = points * (1 + noise * torch.randn(points.shape[:-1], generator=rng)[..., None])
    return pairs, dataclasses.replace(found, pointmap_world=points)


def errors(found, place):
    """Largest rotation error in radians, largest error of a camera's place and mean error of a point, at the true size.

    The size of the world is the pairs' own business: the true one is found by the distances of the points.
    """
    truth = transform_points(place.world_from_camera, place.local)
    size = (truth.norm(dim=-1).mean() / found.pointmap_world.norm(dim=-1).mean()).item()
    pose = found.world_from_camera
    turn = rotation_angle(pose[..., :3, :3], place.world_from_camera[..., :3, :3]).max().item()
    shift = (size * pose[..., :3, 3] - place.world_from_camera[..., :3, 3]).norm(dim=-1).max().item()
    return turn, shift, (size * found.pointmap_world - truth).norm(dim=-1).mean().item()


@pytest.mark.parametrize(("graph", "settings"), [("complete", {}), ("window", {"window": 1}), ("reference", {})])
def test_exact_pairs_give_the_exact_world_from_the_start(graph, settings):
    place = Place(4)
    pairs, prediction = pairs_of(place, graph, **settings)
    found = align_pairs(pairs, prediction, config=START)
    assert max(errors(found, place)) < 2e-3
    torch.testing.assert_close(found.intrinsics[0, :, 0, 0], torch.full((4,), FOCAL), rtol=1e-3, atol=0)


def test_gradient_descent_brings_noisy_pairs_closer_to_the_truth():
    place = Place(4)
    pairs, prediction = pairs_of(place, noise=0.1)
    start = errors(align_pairs(pairs, prediction, config=START), place)
    done = errors(align_pairs(pairs, prediction, config=AlignmentConfig(iterations=150)), place)
    assert done[2] < 0.7 * start[2]
    assert done[1] < start[1]


def test_maps_depth_and_cameras_agree_and_the_world_is_view_0():
    place = Place(3)
    pairs, prediction = pairs_of(place, noise=0.05)
    found = align_pairs(pairs, prediction, config=QUICK)
    torch.testing.assert_close(found.world_from_camera[0, 0], torch.eye(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(transform_points(found.world_from_camera, found.pointmap_camera), found.pointmap_world)
    pixels, depth = project_points(found.pointmap_camera, found.intrinsics)
    torch.testing.assert_close(depth, found.depth)
    assert pixels[0, 1, 3, 7].tolist() == pytest.approx([7, 3], abs=1e-3)
    assert found.confidence_world.unique().tolist() == [2.0]
    assert not found.pointmap_world.requires_grad


def test_the_world_has_the_mean_size_of_the_pairs():
    place = Place(3)
    pairs, prediction = pairs_of(place)
    found = align_pairs(pairs, prediction, config=QUICK)
    assert (found.depth.mean() / place.depth.mean()).item() == pytest.approx(1, abs=1e-2)
    thrice = align_pairs(pairs, map_tensors(prediction, lambda value: 3 * value), config=QUICK)
    assert (thrice.depth.mean() / found.depth.mean()).item() == pytest.approx(3, rel=1e-2)


def test_known_cameras_are_kept_and_a_shared_focal_length_is_one():
    place = Place(3)
    pairs, prediction = pairs_of(place, noise=0.05)
    known = align_pairs(pairs, prediction, intrinsics=place.intrinsics[0], config=QUICK)
    assert torch.equal(known.intrinsics, place.intrinsics)
    shared = align_pairs(pairs, prediction, config=dataclasses.replace(QUICK, shared_focal=True)).intrinsics[0, :, 0, 0]
    assert len(shared.unique()) == 1
    assert shared[0].item() == pytest.approx(FOCAL, rel=0.03)
    apart = align_pairs(pairs, prediction, config=QUICK).intrinsics[0, :, 0, 0]
    assert len(apart.unique()) == 3


def test_pixels_that_do_not_count_and_nan_spoil_nothing():
    place = Place(3)
    pairs, prediction = pairs_of(place)
    prediction.pointmap_world[:, :, :, 12:14] = 100.0
    prediction.pointmap_world[:, :, :, 14:] = torch.nan
    valid = torch.ones(3, 12, 16, dtype=torch.bool)
    valid[:, :, 12:] = False
    found = align_pairs(pairs, prediction, valid=valid, config=QUICK)
    assert rotation_angle(found.world_from_camera[..., :3, :3], place.world_from_camera[..., :3, :3]).max() < 0.02
    assert torch.isfinite(found.pointmap_world).all()


def test_pairs_that_do_not_hang_together_are_refused():
    place = Place(4)
    pairs = [(0, 1), (1, 0), (2, 3), (3, 2)]
    prediction = collate([exact_pair(place, *pair) for pair in pairs])
    with pytest.raises(GeometryError, match=r"from view 0 to views \[2, 3\]"):
        align_pairs(pairs, prediction, config=START)
    with pytest.raises(GeometryError, match="view 1 is the first of no pair"):
        align_pairs([(0, 1)], exact_pair(place, 0, 1), config=START)


@pytest.mark.parametrize("known", [False, True])
def test_a_share_of_the_pixels_is_enough(known):
    place = Place(4)
    pairs, prediction = pairs_of(place)
    few = dataclasses.replace(QUICK, max_pixels=60)  # every second row and column
    intrinsics = place.intrinsics[0] if known else None
    found = align_pairs(pairs, prediction, intrinsics=intrinsics, config=few)
    assert max(errors(found, place)) < 2e-2
    torch.testing.assert_close(found.intrinsics, place.intrinsics, rtol=1e-2, atol=1e-3)
    noisy = align_pairs(pairs, pairs_of(place, noise=0.1)[1], config=dataclasses.replace(few, iterations=150))
    assert errors(noisy, place)[2] < 0.1


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="iterations=-1"):
        AlignmentConfig(iterations=-1)


def test_a_network_takes_photos_to_one_world():
    views = Views(images=torch.rand(1, 3, 3, 8, 12, generator=torch.Generator().manual_seed(0)))
    found = predict_views(Dust3R(TINY).eval(), views, graph="window", window=1, config=QUICK)
    assert found.pointmap_world.shape == (1, 3, 8, 12, 3)
    assert all(torch.isfinite(getattr(found, name)).all() for name in ("pointmap_world", "world_from_camera", "depth"))
    again = predict_views(Dust3R(TINY).eval(), views, graph="window", window=1, config=QUICK)
    assert torch.equal(found.pointmap_world, again.pointmap_world)


def test_two_views_are_solved_without_alignment_unless_it_is_asked_for():
    views = Views(images=torch.rand(1, 2, 3, 8, 12, generator=torch.Generator().manual_seed(0)))
    model = Dust3R(TINY).eval()
    plain = predict_views(model, views)
    assert plain.depth is None
    assert plain.world_from_camera.shape == (1, 2, 4, 4)
    assert predict_views(model, views, config=START).depth is not None


@pytest.mark.parametrize("count", [1, 2, 4])
def test_people_get_a_reconstruction_of_any_number_of_views(count):
    views = Views(images=torch.rand(1, count, 3, 8, 12, generator=torch.Generator().manual_seed(0)))
    found = reconstruct(Dust3R(TINY).train(), views)
    assert found.prediction.pointmap_world.shape == (1, count, 8, 12, 3)
    assert found.prediction.intrinsics.shape == (1, count, 3, 3)
    assert found.prediction.world_from_camera.shape == (1, count, 4, 4)
