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
    assert np.array_equal(restore(predict(plane, predictor), predictor), plane)


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
    assert not predict(slope, "delta")[1:, 1:].any()
    assert pack_plane(slope + noise)[0] == "interpolate"
    assert pack_plane(noise)[0] == "none"


def test_interpolation_is_the_mean_of_two_neighbours_rounded_down():
    plane = np.array([[10, 0, 13], [0, 0, 0], [20, 0, 40]], dtype=np.int32)
    rest = predict(plane, "interpolate")
    # Row 0: 10 stays; 13 is one level further, predicted by 10 alone; between them stands floor(23 / 2).
    assert rest[0].tolist() == [10, -11, 3]
    assert rest[2].tolist() == [10, -30, 27]
    assert rest[1].tolist() == [-15, 0, -26]


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
