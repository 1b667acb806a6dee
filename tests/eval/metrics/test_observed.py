import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.eval.metrics import observed
from distill3d.eval.metrics.observed import ObservedScan, is_observed, observed_scores, thin_out

ABOVE_ZERO = np.array([0.0, 0, 1, 0])


def table(height=5.0, side=40):
    """A grid of points a millimetre apart, 5 mm above the table z = 0, seen from -10 to 60 mm in all directions."""
    x, y = np.meshgrid(np.arange(side, dtype=float), np.arange(side, dtype=float))
    points = np.stack([x, y, np.full_like(x, height)], axis=-1).reshape(-1, 3)
    return ObservedScan(
        points=points, observed=np.ones((36, 36, 36), dtype=bool), low=np.full(3, -10.0), cell=2.0, plane=ABOVE_ZERO
    )


def test_the_scan_itself_is_perfect_and_a_shift_is_its_length():
    scan = table()
    perfect = observed_scores(scan.points, scan)
    assert (perfect.accuracy, perfect.completeness, perfect.overall) == (0, 0, 0)
    assert perfect.num_predicted == len(scan.points)
    above = observed_scores(scan.points + np.array([0, 0, 0.3]), scan)
    assert above.accuracy == pytest.approx(0.3)
    assert above.completeness_median == pytest.approx(0.3)
    assert above.overall == pytest.approx(0.3)


def test_half_a_reconstruction_is_accurate_and_not_complete():
    scan = table()
    half = scan.points[scan.points[:, 0] < 20]
    scores = observed_scores(half, scan)
    assert scores.accuracy == 0
    # Columns 20 ... 38 are 1 ... 19 mm away; the one at 20 mm does not count any more.
    assert scores.completeness == pytest.approx(sum(range(1, 20)) / 39)


def test_what_was_not_seen_and_what_is_far_off_does_not_count():
    scan = table()
    stray = np.array([[5.0, 5.0, 40.0], [500.0, 0, 0], [np.nan, 0, 0]])  # too far away; outside; nothing
    assert observed_scores(np.concatenate([scan.points, stray]), scan).accuracy == 0
    hidden = scan.observed.copy()
    hidden[:, :, 9:] = False  # from z = 7 mm on
    blind = ObservedScan(points=scan.points, observed=hidden, low=scan.low, cell=2.0, plane=ABOVE_ZERO)
    high = scan.points + np.array([0, 0, 4.0])
    assert observed_scores(np.concatenate([scan.points, high]), blind).accuracy == 0
    assert observed_scores(np.concatenate([scan.points, high]), scan).accuracy == pytest.approx(2)
    under = ObservedScan(
        points=np.concatenate([scan.points, scan.points - np.array([0, 0, 10.0])]),
        observed=scan.observed, low=scan.low, cell=2.0, plane=ABOVE_ZERO,
    )  # fmt: skip
    assert observed_scores(scan.points, under).completeness == 0
    nothing = observed_scores(np.full((3, 3), 1e4), scan)
    assert math.isnan(nothing.accuracy)
    assert math.isnan(nothing.completeness)
    assert math.isnan(observed_scores(np.zeros((0, 3)), scan).overall)


def test_the_nearest_cell_decides():
    scan = table()
    seen = np.zeros_like(scan.observed)
    seen[1, 2, 3] = True
    scan = ObservedScan(points=scan.points, observed=seen, low=scan.low, cell=2.0, plane=ABOVE_ZERO)
    centre = np.array([-8.0, -6.0, -4.0])
    assert is_observed(np.stack([centre, centre + 0.9, centre + 1.1, centre - 3, centre + 1e6]), scan).tolist() == [
        True, True, False, False, False,
    ]  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(0, 120), st.sampled_from([(7, 7), (5, 50), (2**12, 2**20)]))
def test_thinning_is_the_choice_one_by_one(seed, count, at_once):
    points = np.random.default_rng(seed).uniform(0, 1, (count, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observed, "_FIRST", at_once[0])
        patch.setattr(observed, "_AT_ONCE", at_once[1])
        kept = thin_out(points, 0.2, seed=seed)
    chosen = []
    for index in np.random.default_rng(seed).permutation(count):
        if all(np.linalg.norm(points[index] - points[other]) > 0.2 for other in chosen):
            chosen.append(index)
    assert kept.tolist() == sorted(chosen)


def test_a_crowd_is_thinned_out_without_all_its_pairs():
    crowd = np.random.default_rng(0).normal(0, 1e-3, (300_000, 3))
    assert len(thin_out(np.concatenate([crowd, crowd + 5]), 0.2)) == 2
