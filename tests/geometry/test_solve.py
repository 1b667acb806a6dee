import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from distill3d.geometry.cameras import centred_intrinsics, unproject_depth
from distill3d.geometry.poses import rotation_angle, transform_points
from distill3d.geometry.solve import (
    focal_and_pose_from_inliers,
    focal_from_pointmap,
    median_focal_from_pointmap,
    pose_from_pointmap,
    poses_from_maps,
)
from tests.geometry.cases import generator, random_pose, seeds

quick = settings(deadline=None, max_examples=15)


@pytest.fixture(scope="module")
def recorded(request):
    return load_file(request.path.parents[1] / "fixtures" / "geometry" / "recordings.safetensors")


def scene(rng, *batch, height=12, width=16, focal=15.0):
    depth = 1 + 2 * torch.rand(*batch, height, width, generator=rng)
    intrinsics = centred_intrinsics(torch.full(batch, focal), height, width)
    return unproject_depth(depth, intrinsics), intrinsics


@quick
@given(seeds, st.floats(2.0, 100.0))
def test_the_focal_length_of_an_exact_map_is_found(seed, focal):
    points, _ = scene(generator(seed), 2, 3, focal=focal)
    torch.testing.assert_close(focal_from_pointmap(points), torch.full((2, 3), focal), rtol=1e-4, atol=0)


def test_a_third_of_wrong_points_moves_the_focal_length_little():
    rng = generator(1)
    points, _ = scene(rng, height=30, width=40, focal=35.0)
    wrong = torch.rand(30, 40, generator=rng) < 0.3
    points[wrong] = points[wrong].flip(0)  # points of the scene, each at another one's pixel
    assert focal_from_pointmap(points, iterations=50).item() == pytest.approx(35.0, rel=0.01)


def test_wild_points_far_off_to_the_side_move_only_the_plain_fit():
    rng = generator(8)
    points, _ = scene(rng, 2, height=30, width=40, focal=35.0)
    wrong = torch.rand(2, 30, 40, generator=rng) < 0.3
    points[wrong] = torch.randn(int(wrong.sum()), 3, generator=rng) * 3 + torch.tensor([0, 0, 1.0])
    torch.testing.assert_close(median_focal_from_pointmap(points), torch.full((2,), 35.0), rtol=1e-4, atol=0)
    assert torch.isnan(median_focal_from_pointmap(points, torch.zeros_like(wrong))).all()


def test_bad_pixels_and_pixels_outside_the_mask_do_not_count():
    points, _ = scene(generator(2))
    points[0, 0], points[0, 1], points[0, 2, 2], points[1] = torch.nan, torch.inf, -1.0, 7.0
    valid = torch.ones(12, 16, dtype=torch.bool)
    valid[1] = False
    assert focal_from_pointmap(points, valid).item() == pytest.approx(15.0, rel=1e-5)


def test_no_focal_length_can_be_said_without_points():
    points, _ = scene(generator(3), 2)
    valid = torch.zeros(2, 12, 16, dtype=torch.bool)
    valid[1] = True
    found = focal_from_pointmap(points, valid)
    assert torch.isnan(found[0])
    assert found[1].item() == pytest.approx(15.0, rel=1e-5)
    axis = torch.zeros(4, 4, 3)
    axis[..., 2] = 1
    assert torch.isnan(focal_from_pointmap(axis))


def test_the_median_focal_length_equals_the_recording(recorded):
    found = median_focal_from_pointmap(recorded["dust3r.focal.pts3d"], principal_point=(32, 24))
    torch.testing.assert_close(found, recorded["dust3r.focal.median"], rtol=1e-4, atol=0)


def test_the_weiszfeld_focal_length_equals_the_recordings(recorded):
    found = focal_from_pointmap(recorded["dust3r.focal.pts3d"], principal_point=(32, 24))
    torch.testing.assert_close(found, recorded["dust3r.focal.weiszfeld"], rtol=1e-5, atol=0)
    confidence, points = recorded["pose.view0.conf"], recorded["pose.view0.pts3d_in_other_view"]
    keep = confidence >= torch.quantile(confidence, 0.1)
    found = focal_from_pointmap(points, keep, principal_point=(32, 24), iterations=100)
    torch.testing.assert_close(found.double(), recorded["pose.focal_view0"], rtol=1e-5, atol=0)


def test_the_poses_equal_the_recording(recorded):
    focal = recorded["pose.focal_view0"].float()[0]
    intrinsics = torch.tensor([[focal, 0, 32], [0, focal, 24], [0, 0, 1]])
    for view in range(3):
        points, confidence = (recorded[f"pose.view{view}.{name}"][0] for name in ("pts3d_in_other_view", "conf"))
        found = pose_from_pointmap(points, intrinsics, confidence > 1, threshold_px=5.0)
        assert found.found
        torch.testing.assert_close(found.world_from_camera, recorded["pose.pnp_c2w"][view], atol=2e-2, rtol=0)
        torch.testing.assert_close(found.world_from_camera.double(), recorded["pose.true_c2w"][view], atol=1e-3, rtol=0)


def test_the_focal_lengths_of_most_inliers_equal_the_recording(recorded):
    for view, expected in enumerate(recorded["pose.pnp_individual_focals"].tolist()):
        points, confidence = (recorded[f"pose.view{view}.{name}"][0] for name in ("pts3d_in_other_view", "conf"))
        focal, estimate = focal_and_pose_from_inliers(points, confidence > 1, principal_point=(32, 24))
        assert estimate.inlier_share == 1
        # All of 38 .. 45 explain every point to 5 pixels; which is the first turns on the last digit.
        assert focal == pytest.approx(expected, rel=0.06)


def test_where_the_threshold_tells_focal_lengths_apart_the_true_one_is_found():
    points, intrinsics = scene(generator(0), height=24, width=32, focal=40.0)
    focal, estimate = focal_and_pose_from_inliers(
        points, threshold_px=0.5, principal_point=tuple(intrinsics[:2, 2].tolist())
    )
    assert focal == pytest.approx(40.0, rel=0.05)
    torch.testing.assert_close(estimate.world_from_camera, torch.eye(4), atol=0.2, rtol=0)


@quick
@given(seeds)
def test_pnp_finds_the_camera_of_a_map_with_a_third_of_wrong_points(seed):
    rng = generator(seed)
    points, intrinsics = scene(rng, height=24, width=32, focal=30.0)
    pose = random_pose(rng, dtype=torch.float32)
    world = transform_points(pose, points)
    wrong = torch.rand(24, 32, generator=rng) < 0.3
    world[wrong] += 3 * torch.randn(int(wrong.sum()), 3, generator=rng)
    world[0, 0] = torch.nan
    found = pose_from_pointmap(world, intrinsics)
    assert found.found
    assert 0.6 < found.inlier_share < 0.85
    torch.testing.assert_close(found.world_from_camera, pose, atol=2e-2, rtol=0)


def test_pnp_is_repeatable_and_bounded_in_points():
    rng = generator(5)
    points, intrinsics = scene(rng, height=40, width=50, focal=40.0)
    world = transform_points(random_pose(rng, dtype=torch.float32), points) + 0.01 * torch.randn(
        40, 50, 3, generator=rng
    )
    first, second = (pose_from_pointmap(world, intrinsics, max_points=300, seed=4) for _ in range(2))
    assert torch.equal(first.world_from_camera, second.world_from_camera)
    assert first.inlier_share == second.inlier_share


@pytest.mark.parametrize("world", [torch.zeros(4, 5, 3), torch.full((4, 5, 3), torch.nan), torch.ones(1, 3, 3)])
def test_pnp_without_usable_points_says_so(world):
    found = pose_from_pointmap(world, centred_intrinsics(torch.tensor(5.0), *world.shape[:2]))
    assert not found.found
    assert torch.equal(found.world_from_camera, torch.eye(4))
    assert found.inlier_share == 0


def test_poses_are_read_off_local_and_world_maps_of_different_size():
    rng = generator(6)
    points, _ = scene(rng, 2, 3)
    pose = random_pose(rng, 2, 3, dtype=torch.float32)
    world = transform_points(pose, points)
    found, similarity = poses_from_maps(points / 2.5, world)
    torch.testing.assert_close(found, pose, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(similarity.scale, torch.full((2, 3), 2.5))
    assert rotation_angle(found[..., :3, :3], pose[..., :3, :3]).max() < 1e-4


def test_gradients_pass_through_the_poses_when_the_fit_is_plain():
    rng = generator(7)
    points, _ = scene(rng, 1, 2)
    world = transform_points(random_pose(rng, 1, 2, dtype=torch.float32), points).requires_grad_()
    found, _ = poses_from_maps(points, world, robust=False)
    found[..., :3, 3].square().sum().backward()
    assert world.grad is not None
    assert torch.isfinite(world.grad).all()
    assert world.grad.abs().max() > 0
