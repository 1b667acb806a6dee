import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from distill3d.eval.metrics.key_view import key_view_scores, resize_nearest


def depth(seed=0):
    return np.random.default_rng(seed).uniform(1, 8, (12, 16))


@pytest.mark.parametrize("align", ["none", "median", "inverse"])
def test_a_perfect_prediction_scores_perfectly_at_half_the_size(align):
    truth = depth().repeat(2, axis=0).repeat(2, axis=1)
    scores = key_view_scores(depth(), truth, align)
    assert scores.absrel == pytest.approx(0, abs=1e-9)
    assert scores.inliers103 == 100


def test_each_alignment_forgives_what_it_fits():
    truth = depth()
    assert key_view_scores(3 * truth, truth, "none").absrel == pytest.approx(200, rel=0.01)
    assert key_view_scores(3 * truth, truth, "median").absrel == pytest.approx(0, abs=1e-9)
    assert key_view_scores(1 / (0.5 / truth + 0.3), truth, "inverse").absrel == pytest.approx(0, abs=1e-9)
    assert key_view_scores(1 / (0.5 / truth + 0.3), truth, "median").absrel > 10


def test_the_value_on_paper_and_the_clip():
    truth = np.array([[1.0, 2, 0, 4]])
    scores = key_view_scores(np.array([[1.02, 2.2, 7, 0.0]]), truth)
    # A prediction of 0 becomes 0.1.
    assert scores.absrel == pytest.approx(100 * (0.02 + 0.1 + 3.9 / 4) / 3)
    assert scores.inliers103 == pytest.approx(100 / 3)
    assert scores.num_pixels == 3


def test_no_known_pixel_gives_nan():
    assert math.isnan(key_view_scores(depth(), np.zeros((12, 16))).absrel)


def test_nearest_resizing_goes_from_centre_to_centre():
    assert resize_nearest(np.array([[1.0, 2, 3]]), (1, 6)).tolist() == [[1, 1, 2, 2, 3, 3]]
    assert resize_nearest(np.array([[1.0, 2, 3]]), (1, 1)).tolist() == [[2]]


@given(st.tuples(*[st.integers(2, 60)] * 4), st.integers(0, 1000))
def test_nearest_pixels_are_those_of_scipy_whatever_the_sizes(sides, seed):
    """27 to 51 and 6 to 47 are among those where rounding decides between two pixels."""
    height, width, rows, columns = sides
    values = np.random.default_rng(seed).random((height, width))
    theirs = ndimage.zoom(values, (rows / height, columns / width), order=0, mode="mirror", grid_mode=True)
    if theirs.shape == (rows, columns):
        assert np.array_equal(resize_nearest(values, (rows, columns)), theirs)


@pytest.mark.parametrize("sides", [(27, 51), (6, 47), (36, 33), (52, 45), (23, 53)])
def test_nearest_pixels_where_rounding_decides(sides):
    values = np.arange(float(sides[0]))[None]
    theirs = ndimage.zoom(values, (1, sides[1] / sides[0]), order=0, mode="mirror", grid_mode=True)
    assert np.array_equal(resize_nearest(values, (1, sides[1])), theirs)
