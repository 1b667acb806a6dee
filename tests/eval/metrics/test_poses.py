import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.eval.metrics.poses import all_pairs, auc, pair_errors, recall, reference_pairs, worst_angle
from tests.geometry.cases import generator, random_pose

quick = settings(deadline=None, max_examples=20)


def poses(seed, count=5):
    return random_pose(generator(seed), count).numpy()


def turn_about_x(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1.0]])


@quick
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_neither_the_world_nor_its_scale_matters(seed, scale):
    truth = poses(seed)
    predicted = random_pose(generator(seed + 1)).numpy() @ truth
    predicted[:, :3, 3] *= scale
    rotation, translation = pair_errors(predicted, truth, all_pairs(5))
    assert rotation.max() < 1e-6
    assert translation.max() < 1e-5
    assert auc(worst_angle(rotation, translation), 5) == pytest.approx(1, abs=1e-5)


def test_a_known_turn_of_one_camera_is_measured_in_its_pairs_only():
    truth = poses(1, 3)
    predicted = truth.copy()
    predicted[2] = truth[2] @ turn_about_x(12.5)
    rotation, translation = pair_errors(predicted, truth, all_pairs(3))
    assert all_pairs(3) == [(0, 1), (0, 2), (1, 2)]
    assert rotation == pytest.approx([0, 12.5, 12.5], abs=1e-6)
    assert translation == pytest.approx(
        [0, 0, 0], abs=1e-6
    )  # seen from cameras 0 and 1, camera 2 stands where it stood
    assert reference_pairs(3) == [(0, 1), (0, 2)]


def test_the_opposite_direction_is_180_degrees_or_folded_0():
    truth = np.stack([np.eye(4), np.eye(4)])
    truth[1, 0, 3] = 1
    predicted = truth.copy()
    predicted[1, 0, 3] = -3
    assert pair_errors(predicted, truth, [(0, 1)])[1] == pytest.approx([180])
    assert pair_errors(predicted, truth, [(0, 1)], translation="folded")[1] == pytest.approx([0])


def test_saying_nothing_about_the_direction_is_no_success():
    truth = np.stack([np.eye(4), np.eye(4)])
    truth[1, 0, 3] = 1
    still = np.stack([np.eye(4), np.eye(4)])
    assert pair_errors(still, truth, [(0, 1)])[1].tolist() == [90]
    assert np.isnan(pair_errors(truth, still, [(0, 1)])[1]).all()
    rotation, translation = pair_errors(truth, still, [(0, 1)])
    assert worst_angle(rotation, translation).tolist() == [0]


def test_recall_on_paper():
    errors = np.array([1.0, 14.9, 15.0, np.inf, np.nan])
    assert recall(errors, 15) == pytest.approx(0.5)
    assert math.isnan(recall(np.array([np.nan]), 15))


def test_auc_on_paper():
    # One of two errors at 2 of 10 degrees: recall climbs to 1/2 on a line from 0 to 2 and stays.
    assert auc(np.array([2.0, np.inf]), 10) == pytest.approx((0.5 * 2 / 2 + 0.5 * 8) / 10)
    assert auc(np.array([0.5, 50.0]), 10, "binned") == pytest.approx(0.5)
    assert auc(np.array([9.5, 50.0]), 10, "binned") == pytest.approx(0.05)
    assert auc(np.array([50.0]), 10) == 0
    assert auc(np.zeros(3), 10) == auc(np.zeros(3), 10, "binned") == auc(np.zeros(3), 10, "histogram") == 1
    assert math.isnan(auc(np.zeros(0), 10))


def test_no_pair_has_no_errors():
    rotation, translation = pair_errors(poses(0, 1), poses(0, 1), all_pairs(1))
    assert len(rotation) == len(translation) == 0
