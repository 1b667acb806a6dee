import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.eval.metrics.trajectory import associate, trajectory_scores
from distill3d.geometry.poses import pose_from_rt, rotation_from_quaternion
from tests.geometry.cases import generator, random_pose

quick = settings(deadline=None, max_examples=15)


def poses(seed, count=12):
    return random_pose(generator(seed), count).numpy()


@quick
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_neither_the_world_nor_its_scale_matters(seed, scale):
    truth = poses(seed)
    moved = random_pose(generator(seed + 1)).numpy() @ truth
    moved[:, :3, 3] *= scale
    scores = trajectory_scores(moved, truth)
    assert scores.ate == pytest.approx(0, abs=1e-9)
    assert scores.rpe_translation == pytest.approx(0, abs=1e-9)
    assert scores.rpe_rotation_deg == pytest.approx(0, abs=1e-5)
    assert scores.scale == pytest.approx(1 / scale)
    if abs(scale - 1) > 0.1:
        assert trajectory_scores(moved, truth, with_scale=False).ate > 1e-3


def test_the_value_on_paper():
    # A square of side 2, walked with one corner lifted by 1 in both directions of travel: the fit stays level.
    truth = np.tile(np.eye(4), (4, 1, 1))
    truth[:, :2, 3] = [[0, 0], [2, 0], [2, 2], [0, 2]]
    predicted = truth.copy()
    predicted[:, 2, 3] = [0.1, -0.1, 0.1, -0.1]
    scores = trajectory_scores(predicted, truth, with_scale=False)
    assert scores.ate == pytest.approx(0.1)
    assert scores.rpe_translation == pytest.approx(0.2)
    assert scores.rpe_rotation_deg == pytest.approx(0, abs=1e-6)


def test_a_turn_of_every_frame_shows_in_the_rotation_alone():
    truth = poses(3)
    angle = math.radians(2) * np.arange(12)
    turns = np.tile(np.eye(4), (12, 1, 1))
    turns[:, 0, 0], turns[:, 0, 1], turns[:, 1, 0], turns[:, 1, 1] = (
        np.cos(angle),
        -np.sin(angle),
        np.sin(angle),
        np.cos(angle),
    )
    scores = trajectory_scores(truth @ turns, truth)
    assert scores.ate == pytest.approx(0, abs=1e-9)
    # Every step is turned by the frame's own angle, undone and done again two degrees farther.
    assert 2 - 1e-6 <= scores.rpe_rotation_deg < 90


def test_frames_without_a_pose_are_left_out_and_counted():
    truth, predicted = poses(4), poses(4)
    predicted[3] = np.nan
    scores = trajectory_scores(predicted, truth)
    assert scores.num_frames == 11
    assert scores.ate == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "truth", [poses(5, 1), np.tile(np.eye(4), (5, 1, 1)), poses(5, 2)], ids=["one", "still", "two"]
)
def test_degenerate_paths_are_scored_without_failing(truth):
    scores = trajectory_scores(poses(6, len(truth)), truth)
    assert math.isnan(scores.ate) == (len(truth) < 2)


def test_time_stamps_are_paired_with_the_nearest():
    first, second = associate(np.array([0.0, 1.0, 2.0, 9.0]), np.array([2.02, 0.01, 1.1]), 0.05)
    assert first.tolist() == [0, 2]
    assert second.tolist() == [1, 0]
    assert all(len(found) == 0 for found in associate(np.zeros(0), np.ones(3), 1.0))


def read_tum(path):
    """Lines of: time, position, quaternion (x, y, z, w) of world_from_camera."""
    table = np.loadtxt(path)
    turns = rotation_from_quaternion(torch.from_numpy(table[:, [7, 4, 5, 6]]))
    return table[:, 0], pose_from_rt(turns, torch.from_numpy(table[:, 1:4])).numpy()


def test_the_published_error_of_a_real_trajectory_is_reproduced(shared_data, capsys):
    folder = shared_data / "trajectory_tum_fr1_xyz"
    (true_times, truth), (times, estimate) = read_tum(folder / "groundtruth.txt"), read_tum(folder / "rgbdslam.txt")
    for max_difference, published in ((0.02, 0.013473), (0.01, 0.013470)):
        ours, true = associate(times, true_times, max_difference)
        scores = trajectory_scores(estimate[ours], truth[true], with_scale=False)
        with capsys.disabled():
            print(f"\nTUM fr1_xyz, {max_difference} s: ATE {scores.ate:.6f} m, published {published:.6f} m")  # noqa: T201
        assert scores.ate == pytest.approx(published, abs=6e-7)
    assert scores.rpe_translation == pytest.approx(0.005764, abs=6e-7)
