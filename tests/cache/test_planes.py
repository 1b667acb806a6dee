import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distill3d.cache.planes import PREDICTORS, pack_plane, predict, restore, unpack_plane

KINDS = st.sampled_from([np.int16, np.int32])
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=37)
PLANES = st.tuples(KINDS, SHAPES).flatmap(lambda drawn: hnp.arrays(*drawn))


@given(PLANES, st.sampled_from(PREDICTORS))
@settings(max_examples=80, deadline=None)
def test_every_predictor_undoes_itself_for_any_numbers(plane, predictor):
    assert np.array_equal(restore(predict(plane, predictor), predictor, plane.shape), plane)


@given(PLANES)
@settings(max_examples=80, deadline=None)
def test_any_plane_comes_back(plane):
    predictor, data = pack_plane(plane)
    assert np.array_equal(unpack_plane(data, predictor, plane.shape, 8 * plane.itemsize), plane)


def test_a_slope_leaves_nothing_and_noise_is_not_amplified():
    row, column = np.mgrid[:40, :60].astype(np.int32)
    noise = np.random.default_rng(0).normal(scale=20, size=(40, 60)).round().astype(np.int32)
    slope = 3 * row - 2 * column
    assert pack_plane(slope)[0] == "delta"
    assert not predict(slope, "delta").reshape(40, 60)[1:, 1:].any()
    assert pack_plane(slope + noise)[0] == "pyramid"
    assert pack_plane(noise)[0] == "none"


def test_the_pyramid_predicts_the_mean_of_the_two_middle_neighbours():
    plane = np.zeros((32, 34), dtype=np.int16)
    plane[:3, :3] = [[10, 7, 13], [9, 100, 5], [20, 3, 40]]
    rest = predict(plane, "pyramid")
    # The coarsest plane is 16 x 17, and so are centres, rights and belows.
    _, centres, right, below = rest.reshape(4, -1)
    assert centres[0] == 100 - (13 + 20) // 2  # of 10, 13, 20, 40
    assert right[0] == 7 - (13 + 100) // 2  # of 10, 13 and 100, which stands in for the row above it
    assert below[0] == 9 - (20 + 100) // 2  # of 10, 20 and 100, which stands in for the column before it
    assert right[17] == 3 - (20 + 40) // 2  # of 20, 40, 100 and 0


def test_numbers_beyond_a_byte_cost_only_themselves():
    rng = np.random.default_rng(0)
    small = rng.integers(-3, 4, (64, 64)).astype(np.int32)
    few_big = small.copy()
    few_big[rng.random(small.shape) < 0.01] = 1 << 20
    assert len(pack_plane(few_big)[1]) < len(pack_plane(small)[1]) + 600


@pytest.mark.parametrize("change", ["cut", "size", "predictor"])
def test_damage_is_an_error_of_a_kind_that_blobs_expect(change):
    predictor, data = pack_plane(np.arange(48, dtype=np.int32).reshape(6, 8) ** 2)
    shape = (6, 9) if change == "size" else (6, 8)
    if change == "cut":
        data = data[:-3]
    if change == "predictor":
        predictor = "guess"
    from zstandard import ZstdError

    with pytest.raises((ValueError, ZstdError)):
        unpack_plane(data, predictor, shape, 32)
