import math

import numpy as np
import pytest

from distill3d.eval.metrics.calibration import calibration, sparsification_curve

ERROR = np.random.default_rng(0).exponential(size=2000)


def test_an_uncertainty_that_ranks_like_the_error_has_no_area_to_the_oracle():
    found = calibration(ERROR, 3 * ERROR + 7)
    assert found.ause == 0
    np.testing.assert_array_equal(found.by_uncertainty, found.by_error)


def test_an_uncertainty_without_knowledge_is_as_bad_as_chance_and_a_reversed_one_is_worse():
    chance = calibration(ERROR, np.random.default_rng(1).uniform(size=2000))
    assert chance.ause == pytest.approx(chance.ause_random, rel=0.1)
    assert calibration(ERROR, -ERROR).ause > 1.5 * chance.ause_random


def test_the_curve_on_paper():
    # Dropping the largest of (4, 3, 2, 1) one after another leaves means of 2.5, 2, 1.5 and 1.
    curve = sparsification_curve(np.array([1.0, 4, 2, 3]), np.array([1.0, 4, 2, 3]), steps=4)
    np.testing.assert_allclose(curve, np.array([2.5, 2, 1.5, 1]) / 2.5)
    # Half steps lie on the straight line between whole ones.
    np.testing.assert_allclose(
        sparsification_curve(np.array([1.0, 3]), np.array([1.0, 3]), steps=4), np.array([2, 1.5, 1, 1]) / 2
    )


def test_nan_is_left_out_and_nothing_gives_nan():
    error, uncertainty = ERROR.copy(), ERROR.copy()
    error[5], uncertainty[6] = np.nan, np.inf
    kept = np.delete(ERROR, [5, 6])
    assert calibration(error, uncertainty).ause == calibration(kept, kept).ause
    assert math.isnan(calibration(np.zeros(0), np.zeros(0)).ause)
    assert math.isnan(calibration(np.zeros(5), np.arange(5.0)).ause)
