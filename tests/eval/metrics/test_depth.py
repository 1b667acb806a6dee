import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.eval.metrics.depth import depth_alignment, depth_scores, lower_median

quick = settings(deadline=None, max_examples=25)


def random_depth(seed, shape=(4, 5)):
    return np.random.default_rng(seed).uniform(0.5, 5, shape)


@pytest.mark.parametrize("align", ["none", "median", "scale", "affine", "lad"])
def test_a_perfect_prediction_scores_perfectly(align):
    truth = random_depth(0)
    scores = depth_scores(truth, truth, align=align)
    assert scores.abs_rel == pytest.approx(0, abs=1e-12)
    assert scores.rmse == pytest.approx(0, abs=1e-12)
    assert (scores.delta1, scores.delta3, scores.num_pixels) == (1, 1, 20)


@quick
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_a_scaled_prediction_is_perfect_after_alignment_and_not_before(seed, scale):
    truth = random_depth(seed)
    for align in ("median", "scale", "affine"):
        assert depth_scores(truth * scale, truth, align=align).abs_rel == pytest.approx(0, abs=1e-4)
    assert depth_scores(truth * scale, truth, align="none").abs_rel == pytest.approx(abs(scale - 1))


def test_scale_and_shift_are_found():
    truth = random_depth(1)
    scale, shift = depth_alignment(2 * truth.ravel() + 3, truth.ravel(), "affine")
    assert (scale, shift) == pytest.approx((0.5, -1.5))


def test_the_value_on_paper():
    predicted, truth = np.array([1.0, 2.0, 6.0, 1.0]), np.array([1.0, 2.0, 4.0, 0.0])
    scores = depth_scores(predicted, truth, align="none")
    assert scores.num_pixels == 3
    assert scores.abs_rel == pytest.approx(0.5 / 3)
    assert scores.sq_rel == pytest.approx(1 / 3)
    assert scores.rmse == pytest.approx(math.sqrt(4 / 3))
    assert scores.delta1 == pytest.approx(2 / 3)
    assert scores.delta2 == pytest.approx(1)  # 1.5 is below 1.25 squared
    assert scores.log_rmse == pytest.approx(math.log(1.5) / math.sqrt(3))


def test_nan_outside_the_mask_changes_nothing_and_inside_it_shows():
    truth, predicted = random_depth(2), random_depth(3)
    valid = np.ones(truth.shape, dtype=bool)
    valid[0] = False
    before = depth_scores(predicted, truth, valid)
    predicted[0], truth[0, 1] = np.nan, np.nan
    assert depth_scores(predicted, truth, valid) == before
    assert math.isnan(depth_scores(predicted, random_depth(2)).delta1)


def test_an_empty_mask_gives_nan():
    scores = depth_scores(random_depth(0), np.zeros((4, 5)))
    assert math.isnan(scores.abs_rel)
    assert math.isnan(scores.delta1)
    assert scores.num_pixels == 0
    assert math.isnan(lower_median(np.zeros(0)))


def test_a_prediction_that_is_not_positive_is_an_outlier():
    assert depth_scores(np.array([-1.0, 1.0]), np.array([1.0, 1.0]), align="none").delta3 == 0.5


def test_an_all_zero_prediction_cannot_be_scaled():
    assert math.isnan(depth_scores(np.zeros((4, 5)), random_depth(0)).abs_rel)
    assert math.isnan(depth_scores(np.zeros((4, 5)), random_depth(0), align="scale").abs_rel)
