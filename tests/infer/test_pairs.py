import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.geometry.poses import rebase_poses, relative_pose, transform_points
from distill3d.infer.pairs import make_pairs, predict_pairs, solve_pair
from distill3d.models.dust3r import Dust3R, Dust3RConfig
from distill3d.types import Prediction
from tests.infer.exact import FOCAL, Place

TINY = Dust3RConfig(
    patch_size=4, encoder_dim=16, encoder_depth=1, encoder_heads=2, decoder_dim=8, decoder_depth=2, decoder_heads=2,
    head="linear", initialisation="muon",
)  # fmt: skip


def exact_pair(place, first, second, size=1.0, confidence=(2.0, 2.0)):
    """What a perfect network says about a pair, at a size of its own."""
    pose = rebase_poses(place.world_from_camera[:, [first, second]], 0)
    points = size * transform_points(pose, place.local[:, [first, second]])
    level = torch.tensor(confidence)[None, :, None, None].expand(points.shape[:-1])
    return Prediction(pointmap_world=points, confidence_world=level.clone())


def test_the_complete_graph_lists_later_views_first_and_then_all_pairs_swapped():
    assert make_pairs(3) == [(1, 0), (2, 0), (2, 1), (0, 1), (0, 2), (1, 2)]
    assert len(set(make_pairs(6))) == 30


def test_windows_and_references_leave_pairs_out():
    assert make_pairs(4, "window", window=1) == [(1, 0), (2, 1), (3, 2), (0, 1), (1, 2), (2, 3)]
    assert make_pairs(3, "reference", reference=1) == [(1, 0), (2, 1), (0, 1), (1, 2)]
    assert make_pairs(5, "window", window=9) == make_pairs(5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 1}, "at least two views, there are 1"),
        ({"count": 3, "graph": "window", "window": 0}, "window of 0"),
        ({"count": 3, "graph": "reference", "reference": 3}, r"view 3, but the views are 0 \.\. 2"),
    ],
)
def test_settings_that_give_no_graph_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        make_pairs(**settings)


def test_pairs_together_are_the_pairs_one_by_one():
    model = Dust3R(TINY).eval()
    images = torch.rand(3, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    pairs = make_pairs(3)
    found = predict_pairs(model, images, pairs, batch_size=4)
    with torch.no_grad():
        for row, pair in enumerate(pairs):
            alone = model(images[None, list(pair)])
            torch.testing.assert_close(found.pointmap_world[row], alone.pointmap_world[0])
            torch.testing.assert_close(found.confidence_world[row], alone.confidence_world[0])


@pytest.mark.parametrize("confidence", [((5.0, 5.0), (4.0, 4.0)), ((4.0, 4.0), (5.0, 5.0))])
def test_the_cameras_of_a_pair_are_found_from_either_order(confidence):
    place = Place(2)
    sizes = (2.0, 3.0)
    forward = exact_pair(place, 0, 1, sizes[0], confidence[0])
    swapped = exact_pair(place, 1, 0, sizes[1], confidence[1])
    found = solve_pair(forward, swapped)
    size = sizes[0] if confidence[0] > confidence[1] else sizes[1]
    torch.testing.assert_close(found.intrinsics[0, :, 0, 0], torch.full((2,), FOCAL), rtol=1e-3, atol=0)
    expected = relative_pose(place.world_from_camera[:, :1], place.world_from_camera)
    torch.testing.assert_close(found.world_from_camera[..., :3, :3], expected[..., :3, :3], rtol=0, atol=1e-3)
    torch.testing.assert_close(found.world_from_camera[..., :3, 3], size * expected[..., :3, 3], rtol=0, atol=5e-3)
    points = size * transform_points(place.world_from_camera, place.local)
    torch.testing.assert_close(found.pointmap_world, points, rtol=0, atol=1e-2)
    assert found.confidence_world.unique().tolist() == [5.0]


def test_known_intrinsics_are_kept():
    place = Place(2)
    found = solve_pair(exact_pair(place, 0, 1), exact_pair(place, 1, 0), intrinsics=place.intrinsics[0])
    assert torch.equal(found.intrinsics, place.intrinsics)
    torch.testing.assert_close(found.world_from_camera, place.world_from_camera, rtol=0, atol=1e-3)


def test_padding_tells_nothing_about_the_cameras():
    place = Place(2)
    forward, swapped = exact_pair(place, 0, 1, confidence=(5.0, 5.0)), exact_pair(place, 1, 0)
    valid = torch.ones(2, 12, 16, dtype=torch.bool)
    valid[:, :, 12:] = False
    for prediction in (forward, swapped):
        prediction.pointmap_world[:, :, :, 12:] = torch.randn(12, 4, 3).abs()
    found = solve_pair(forward, swapped, valid=valid)
    torch.testing.assert_close(found.intrinsics[0, :, 0, 0], torch.full((2,), FOCAL), rtol=1e-3, atol=0)
    torch.testing.assert_close(found.world_from_camera, place.world_from_camera, rtol=0, atol=5e-3)
