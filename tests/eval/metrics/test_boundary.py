import math

import numpy as np
import pytest

from distill3d.eval.metrics.boundary import boundary_f1


def step(columns=12, edge=6, far=2.0):
    depth = np.ones((10, columns))
    depth[:, edge:] = far
    return depth


EVERYWHERE = np.ones((10, 12), dtype=bool)


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_a_perfect_edge_scores_one_at_any_scale(radius):
    assert boundary_f1(7 * step(), step(), EVERYWHERE, radius) == 1
    assert boundary_f1(np.ones((10, 12)), step(), EVERYWHERE, radius) == 0


def test_an_edge_that_is_one_pixel_off_is_missed_at_radius_one_and_partly_forgiven_at_three():
    shifted = step(edge=7)
    scores = [boundary_f1(shifted, step(), EVERYWHERE, radius) for radius in (1, 2, 3)]
    assert scores[0] == 0
    assert 0 < scores[1] < scores[2] < 1


def test_a_step_counts_at_the_thresholds_that_it_exceeds():
    # 15 percent exceeds the five thresholds from 0.05 to 0.139; both agree there, and neither has an edge above.
    thresholds = np.linspace(0.05, 0.25, 10)
    expected = thresholds[thresholds < 0.15].sum() / thresholds.sum()
    assert boundary_f1(step(far=1.15), step(far=1.15), EVERYWHERE) == pytest.approx(expected)


def test_pixels_outside_the_mask_may_hold_anything():
    valid = EVERYWHERE.copy()
    valid[:3] = False
    predicted, truth = step(), step()
    before = boundary_f1(predicted, truth, valid)
    predicted[:3], truth[:3] = np.nan, 0
    assert boundary_f1(predicted, truth, valid) == before == 1


def test_no_pair_of_pixels_gives_nan():
    assert math.isnan(boundary_f1(step(), step(), ~EVERYWHERE))
    assert math.isnan(boundary_f1(np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2), dtype=bool)))
