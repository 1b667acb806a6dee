import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.eval.metrics.points import (
    cloud_scores,
    estimate_normals,
    point_scores,
    refine_rigidly,
)
from tests.geometry.cases import generator, random_rotation

quick = settings(deadline=None, max_examples=20)


def random_map(seed, shape=(2, 5, 6)):
    return np.random.default_rng(seed).normal(size=(*shape, 3))


def everywhere(points):
    return np.ones(points.shape[:-1], dtype=bool)


@quick
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_a_similar_map_is_perfect_after_similarity(seed, scale):
    truth = random_map(seed)
    moved = scale * truth @ random_rotation(generator(seed)).numpy().T + np.array([1.0, -2, 3])
    scores = point_scores(moved, truth, everywhere(truth))
    assert scores.mean == pytest.approx(0, abs=1e-9)
    assert scores.scale == pytest.approx(1 / scale)
    assert point_scores(moved, truth, everywhere(truth), align="none").mean > 0.1


def test_one_scale_does_not_forgive_a_rotation():
    truth = random_map(1)
    assert point_scores(7 * truth, truth, everywhere(truth), align="scale").relative == pytest.approx(0, abs=1e-12)
    turned = truth @ random_rotation(generator(1)).numpy().T
    assert point_scores(turned, truth, everywhere(truth), align="scale").relative > 0.3


def test_the_value_on_paper():
    truth = np.array([[[3.0, 0, 0], [0, 4, 0]]])
    predicted = truth + np.array([0, 0, 0.7])
    scores = point_scores(predicted, truth, everywhere(truth), align="none")
    assert scores.mean == pytest.approx(0.7)
    assert scores.median == pytest.approx(0.7)
    assert scores.relative == pytest.approx(0.2)
    assert (scores.scale, scores.num_points) == (1, 2)


def test_noise_of_known_size_is_measured():
    truth = random_map(2, (10, 40, 50))
    noisy = truth + np.random.default_rng(3).normal(scale=0.01, size=truth.shape)
    # The mean length of a 3-D Gaussian vector is sigma * sqrt(8 / pi).
    assert point_scores(noisy, truth, everywhere(truth)).mean == pytest.approx(0.01 * math.sqrt(8 / math.pi), rel=0.02)


def test_nan_outside_the_mask_changes_nothing():
    truth, predicted = random_map(4), random_map(5)
    valid = everywhere(truth)
    valid[0, :2] = False
    before = point_scores(predicted, truth, valid)
    predicted[0, :2], truth[0, 0] = np.nan, np.inf
    assert point_scores(predicted, truth, valid) == before


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((1, 1, 3)),
        np.array([[[0.0, 0, 1], [1, 0, 1]]]),
        np.full((3, 4, 3), 2.0),
        np.arange(12.0).reshape(2, 6, 1) * np.ones(3),
    ],
    ids=["one point", "two points", "all equal", "a line"],
)
def test_degenerate_points_are_scored_without_failing(points):
    assert point_scores(points * 2 + 1, points, everywhere(points)).mean == pytest.approx(0, abs=1e-6)
    assert math.isfinite(point_scores(points * 2 + 1, points, everywhere(points), align="scale").mean)


def test_a_flat_wall_is_aligned_without_a_mirror():
    wall = random_map(6)
    wall[..., 2] = 2
    turned = wall @ random_rotation(generator(6)).numpy().T
    assert point_scores(turned, wall, everywhere(wall)).mean == pytest.approx(0, abs=1e-9)


def test_an_empty_mask_gives_nan():
    truth = random_map(7)
    scores = point_scores(truth, truth, ~everywhere(truth))
    assert math.isnan(scores.mean)
    assert scores.num_points == 0


def test_clouds_on_paper():
    truth = np.array([[0.0, 0, 0], [1, 0, 0]])
    predicted = np.array([[0.0, 0, 0.1], [0, 0, 0.3], [0, 0, 0.2]])
    scores = cloud_scores(predicted, truth)
    assert scores.accuracy == pytest.approx(0.2)
    assert scores.accuracy_median == pytest.approx(0.2)
    assert scores.completeness == pytest.approx((0.1 + math.sqrt(1.01)) / 2)
    assert math.isnan(scores.normal_consistency)
    assert math.isnan(cloud_scores(np.zeros((0, 3)), truth).accuracy)


def test_fewer_queries_estimate_the_same_numbers():
    rng = np.random.default_rng(10)
    predicted, truth = rng.uniform(size=(4000, 3)), rng.uniform(size=(5000, 3)) + 0.05
    every, some = cloud_scores(predicted, truth), cloud_scores(predicted, truth, max_queries=1000)
    assert some.accuracy == pytest.approx(every.accuracy, rel=0.05)
    assert some.completeness == pytest.approx(every.completeness, rel=0.05)
    assert some != every


def test_the_normals_of_a_plane_are_its_normal():
    plane = np.random.default_rng(8).uniform(size=(100, 3)) * np.array([1, 1, 0.0])
    np.testing.assert_allclose(np.abs(estimate_normals(plane)), np.tile([0, 0, 1.0], (100, 1)), atol=1e-9)
    assert estimate_normals(plane[:2]).shape == (2, 3)
    assert estimate_normals(plane[:0]).shape == (0, 3)


def test_icp_takes_back_a_small_motion():
    truth = np.random.default_rng(9).uniform(size=(500, 3))
    angle = 0.02
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    moved = truth @ turn.T + 0.005
    found = refine_rigidly(moved, truth, 0.1)
    np.testing.assert_allclose(moved @ found[:3, :3].T + found[:3, 3], truth, atol=1e-6)
    assert np.array_equal(refine_rigidly(moved + 50, truth, 0.1), np.eye(4))
