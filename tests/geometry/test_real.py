"""The conventions, checked on real photos and depth whose cameras others have measured."""

import json

import cv2
import numpy as np
import pytest
import torch

from distill3d.geometry.cameras import project_points, resize_intrinsics, unproject_depth
from distill3d.geometry.poses import relative_pose, rotation_angle, transform_points
from distill3d.geometry.solve import focal_from_pointmap, pose_from_pointmap, poses_from_maps


def cameras(folder):
    views = json.loads((folder / "gt.json").read_text())["views"]
    intrinsics = torch.tensor([view["K"] for view in views], dtype=torch.float64)
    return views, intrinsics, torch.tensor([view["T_world_from_camera"] for view in views], dtype=torch.float64)


def sampson_distance(first, second, intrinsics, second_from_first):
    """Distance in pixels of matches from the epipolar geometry of two cameras."""
    x, y, z = second_from_first[:3, 3].tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    inverse = torch.linalg.inv(intrinsics)
    fundamental = (inverse.T @ cross @ second_from_first[:3, :3] @ inverse).numpy()
    ones = np.ones((len(first), 1))
    a, b = np.hstack([first, ones]), np.hstack([second, ones])
    lines_b, lines_a = a @ fundamental.T, b @ fundamental
    scale = (lines_b[:, :2] ** 2).sum(1) + (lines_a[:, :2] ** 2).sum(1)
    return np.abs((b * lines_b).sum(1)) / np.sqrt(scale)


def test_matches_between_the_photos_of_a_desk_lie_on_their_epipolar_lines(shared_data):
    folder = shared_data / "charuco_desk"
    views, intrinsics, poses = cameras(folder)
    finder = cv2.SIFT_create()
    found = []
    for view in (0, 3):
        photo = cv2.imread(str(folder / views[view]["image"]), cv2.IMREAD_GRAYSCALE)
        found.append(finder.detectAndCompute(photo, None))
    (points_a, words_a), (points_b, words_b) = found
    matches = cv2.BFMatcher().knnMatch(words_a, words_b, k=2)
    good = [best for best, second in matches if best.distance < 0.7 * second.distance]
    a = np.array([points_a[match.queryIdx].pt for match in good])
    b = np.array([points_b[match.trainIdx].pt for match in good])
    b_from_a = relative_pose(poses[3], poses[0])
    assert len(good) > 100
    assert np.median(sampson_distance(a, b, intrinsics[0], b_from_a)) < 0.5
    # The other reading of the pose must be far worse, or this test would show nothing.
    assert np.median(sampson_distance(a, b, intrinsics[0], torch.linalg.inv(b_from_a))) > 5


@pytest.fixture(scope="module")
def livingroom(shared_data):
    folder = shared_data / "rgbd_livingroom"
    views, intrinsics, poses = cameras(folder)
    depth = [cv2.imread(str(folder / view["depth"]), cv2.IMREAD_UNCHANGED).astype(np.float64) / 1000 for view in views]
    return torch.from_numpy(np.stack(depth)), intrinsics, poses


def test_the_depth_of_one_frame_seen_from_another_is_that_frames_depth(livingroom):
    depth, intrinsics, poses = livingroom
    points = transform_points(relative_pose(poses[0], poses[4]), unproject_depth(depth[4], intrinsics[4]))
    pixels, seen = project_points(points, intrinsics[0])
    height, width = depth.shape[1:]
    column, row = pixels.nan_to_num(-1).round().long().unbind(dim=-1)
    inside = (depth[4] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    there = depth[0][row[inside], column[inside]]
    known = there > 0
    error = ((seen[inside] - there).abs() / there)[known]
    assert error.median() < 0.005
    assert known.float().mean() > 0.8


@pytest.mark.parametrize("shrink", [1, 4])
def test_cameras_are_found_again_from_pointmaps(livingroom, shrink):
    depth, intrinsics, poses = livingroom
    height, width = depth.shape[1:]
    # Taking every fourth pixel keeps the centre of the first one, where resizing keeps the border of the image.
    small = resize_intrinsics(intrinsics, (height, width), (height // shrink, width // shrink))
    small[:, :2, 2] += (shrink - 1) / (2 * shrink)
    local = unproject_depth(depth[:, ::shrink, ::shrink], small)
    torch.testing.assert_close(local, unproject_depth(depth, intrinsics)[:, ::shrink, ::shrink])
    valid = depth[:, ::shrink, ::shrink] > 0
    world = transform_points(poses, local)
    found, _ = poses_from_maps(local[None] / 3, world[None], valid=valid[None])
    torch.testing.assert_close(found[0], poses, atol=1e-6, rtol=0)
    centre = (float(small[0, 0, 2]), float(small[0, 1, 2]))
    focal = focal_from_pointmap(local, valid, centre)
    torch.testing.assert_close(focal, small[:, 0, 0], rtol=1e-5, atol=0)
    pnp = pose_from_pointmap(world[4], small[4], valid[4])
    assert pnp.inlier_share > 0.99
    assert rotation_angle(pnp.world_from_camera[:3, :3], poses[4, :3, :3]) < 1e-4


def test_a_stereo_pair_warps_from_right_to_left_through_its_depth(shared_data):
    """Middlebury's motorcycle; those who prepared it found 8.0 grey levels (39.5 unwarped) and correlation 0.948."""
    folder = shared_data / "stereo_middlebury" / "motorcycle"
    left, right = (cv2.imread(str(folder / f"{side}.jpg"), cv2.IMREAD_GRAYSCALE) for side in ("left", "right"))
    disparity = cv2.imread(str(folder / "disparity.png"), cv2.IMREAD_UNCHANGED) / 512
    focal, baseline, shift = 994.978, 0.193001, 31.086
    intrinsics = torch.tensor([[focal, 0, 311.193], [0, focal, 254.877], [0, 0, 1]], dtype=torch.float64)
    known = disparity > 0
    depth = torch.from_numpy(np.where(known, focal * baseline / (disparity + shift), 1.0))
    right_from_left = torch.eye(4, dtype=torch.float64)
    right_from_left[0, 3] = -baseline
    points = transform_points(right_from_left, unproject_depth(depth, intrinsics))
    moved = intrinsics.clone()
    moved[0, 2] += shift
    pixels = project_points(points, moved)[0].float().numpy()
    warped = cv2.remap(right, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR, borderValue=0)
    inside = known & (pixels[..., 0] >= 0) & (pixels[..., 0] <= left.shape[1] - 1)
    error = np.abs(warped.astype(float) - left)[inside].mean()
    unwarped = np.abs(right.astype(float) - left)[inside].mean()
    correlation = np.corrcoef(warped[inside], left[inside])[0, 1]
    assert error < 8.3
    assert unwarped > 30
    assert correlation > 0.945
