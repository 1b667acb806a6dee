import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distill3d.cache.blob import Blob, pack_blob, unpack_blob
from distill3d.cache.codec import get_codec
from distill3d.cache.exact import ExactCodec, to_half
from distill3d.cache.record import DEPTH, LOCAL, WORLD
from distill3d.cache.similarity import ROTATION, SCALE, TRANSLATION
from distill3d.errors import CacheError

from .samples import make_sample

CONFIDENCE, TWIN = "prediction.confidence_world", "prediction.confidence_camera"
HALF_BITS = st.integers(0, 2**16 - 1)


def local_and_world(seed: int = 0, **sizes: int) -> dict[str, np.ndarray]:
    _, prediction = make_sample(seed, views=1, **sizes)
    return {LOCAL: prediction.pointmap_camera[0, 0].numpy(), WORLD: prediction.pointmap_world[0, 0].numpy()}


@given(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=20).flatmap(
        lambda shape: hnp.arrays(np.uint16, (*shape, 3), elements=HALF_BITS)
    )
)
@settings(max_examples=60, deadline=None)
def test_any_float16_bits_come_back(bits):
    # Every pattern of 16 bits: zeros of both signs, denormals, infinities and NaN with any payload.
    half = bits.view(np.float16)
    packed = pack_blob(Blob(arrays={"map": half, "flat": half[..., 0]}))
    found = unpack_blob(packed).arrays
    assert np.array_equal(found["map"].view(np.uint16), bits)
    assert np.array_equal(found["flat"].view(np.uint16), bits[..., 0])


@given(hnp.arrays(np.float32, (5, 7, 3), elements=st.floats(width=16, allow_subnormal=True)))
@settings(max_examples=60, deadline=None)
def test_values_that_float16_holds_come_back_exactly(points):
    found = ExactCodec().decode(ExactCodec().encode({LOCAL: points}).data)[LOCAL]
    assert found.dtype == np.float32
    assert np.array_equal(found, points, equal_nan=True)


@given(hnp.arrays(np.float32, (4, 9), elements=st.floats(width=32)))
@settings(max_examples=60, deadline=None)
def test_any_float32_map_is_kept_to_float16_or_exactly(values):
    found = ExactCodec().decode(ExactCodec().encode({CONFIDENCE: values}).data)[CONFIDENCE]
    finite = np.isfinite(values)
    assert np.array_equal(found[~finite], values[~finite], equal_nan=True)
    # 2^-11 of the value, or half the step of float16's denormals.
    bound = np.maximum(np.abs(values[finite].astype(np.float64)) * 2.0**-11, 2.0**-25)
    assert (np.abs(found[finite].astype(np.float64) - values[finite]) <= bound).all()


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (3,), (1, 1), (13, 17), (40, 30, 3), (4, 4)])
def test_arrays_of_every_kind_and_shape_come_back(kind, shape):
    array = np.asarray(np.random.default_rng(0).normal(size=shape) * 100).astype(kind)
    found = unpack_blob(pack_blob(Blob(arrays={"x": array}, notes={"a": 1})))
    assert found.notes == {"a": 1}
    assert found.arrays["x"].dtype == array.dtype
    assert np.array_equal(found.arrays["x"], array)


def test_a_value_beyond_float16_widens_its_map_alone():
    arrays = local_and_world()
    arrays[CONFIDENCE] = np.full((6, 8), 7.3, dtype=np.float32)
    arrays[CONFIDENCE][2, 3] = 1e6
    arrays["prediction.depth"] = np.full((6, 8), 7.3, dtype=np.float32)
    encoded = ExactCodec().encode(arrays)
    stored = unpack_blob(encoded.data).arrays
    assert stored[CONFIDENCE].dtype == np.float32
    assert stored["prediction.depth"].dtype == np.float16
    assert np.array_equal(ExactCodec().decode(encoded.data)[CONFIDENCE], arrays[CONFIDENCE])


def test_float16_reaches_65504_and_infinity_is_not_a_reason_to_widen():
    assert to_half(np.array([65504.0, np.inf, -np.inf, np.nan], dtype=np.float32)).dtype == np.float16
    assert to_half(np.array([65520.0], dtype=np.float32)).dtype == np.float32


def test_a_map_in_tiny_units_is_widened_rather_than_crushed():
    tiny = np.linspace(1e-6, 1e-5, 48, dtype=np.float32).reshape(6, 8)
    assert to_half(tiny).dtype == np.float32
    few = np.where(np.arange(48).reshape(6, 8) < 5, tiny, 1.0).astype(np.float32)
    assert to_half(few).dtype == np.float16


def test_the_world_map_of_a_similarity_is_within_the_stated_bound_of_the_stored_one():
    arrays = local_and_world(height=20, width=30)
    by_similarity, stored = ExactCodec().encode(arrays), ExactCodec(world="stored").encode(arrays)
    assert by_similarity.from_similarity
    assert not stored.from_similarity
    assert len(by_similarity.data) < 0.7 * len(stored.data)
    found, kept = ExactCodec().decode(by_similarity.data), ExactCodec(world="stored").decode(stored.data)
    assert np.array_equal(kept[WORLD], arrays[WORLD].astype(np.float16).astype(np.float32))
    reach = np.linalg.norm(arrays[WORLD], axis=-1) + found[SCALE] * np.linalg.norm(arrays[LOCAL], axis=-1)
    assert (np.linalg.norm(found[WORLD] - arrays[WORLD], axis=-1) <= 2.0**-11 * reach).all()
    assert found[SCALE] == pytest.approx(1.7, rel=1e-6)
    assert np.allclose(found[ROTATION] @ found[ROTATION].T, np.eye(3), atol=1e-12)
    rebuilt = found[SCALE] * found[LOCAL].astype(np.float64) @ found[ROTATION].T + found[TRANSLATION]
    assert np.allclose(rebuilt, found[WORLD], atol=1e-6)


def test_far_points_do_not_spoil_the_similarity_of_near_ones():
    arrays = local_and_world(height=20, width=30)
    far = np.random.default_rng(0).random((20, 30)) < 0.1
    rotation, scale = np.eye(3)[[1, 2, 0]], 0.5
    arrays[LOCAL][far] *= 5000
    arrays[WORLD] = (scale * arrays[LOCAL].astype(np.float64) @ rotation.T + 3).astype(np.float32)
    assert ExactCodec().encode(arrays).from_similarity


def test_a_world_map_that_is_no_similarity_is_stored_bit_exactly():
    arrays = local_and_world()
    arrays[WORLD][3, 3, 1] += 0.05
    encoded = ExactCodec().encode(arrays)
    assert not encoded.from_similarity
    found = ExactCodec().decode(encoded.data)
    assert SCALE not in found
    assert np.array_equal(found[WORLD], arrays[WORLD].astype(np.float16).astype(np.float32))


def test_points_that_are_not_finite_stay_so_on_both_paths():
    arrays = local_and_world()
    arrays[LOCAL][0, :3] = np.nan
    arrays[WORLD][0, :3] = np.nan
    encoded = ExactCodec().encode(arrays)
    assert encoded.from_similarity
    assert np.isnan(ExactCodec().decode(encoded.data)[WORLD][0, :3]).all()
    arrays[WORLD][5, 5] = np.inf  # the maps disagree about this point: only the stored map can say so
    encoded = ExactCodec().encode(arrays)
    assert not encoded.from_similarity
    assert np.isinf(ExactCodec().decode(encoded.data)[WORLD][5, 5]).all()


@pytest.mark.parametrize("case", ["all nan", "all equal", "on a line", "two points"])
def test_maps_that_fix_no_similarity_keep_their_world_map(case):
    arrays = local_and_world()
    if case == "all nan":
        arrays = {name: np.full_like(array, np.nan) for name, array in arrays.items()}
    elif case == "all equal":
        arrays = {name: np.ones_like(array) for name, array in arrays.items()}
    elif case == "on a line":
        line = np.arange(48, dtype=np.float32).reshape(6, 8, 1) * np.float32([1, 2, 3])
        arrays = {LOCAL: line, WORLD: line + 1}
    else:
        for array in arrays.values():
            array.reshape(-1, 3)[2:] = np.nan
    encoded = ExactCodec().encode(arrays)
    assert not encoded.from_similarity
    found = ExactCodec().decode(encoded.data)[WORLD]
    assert np.array_equal(found, arrays[WORLD].astype(np.float16).astype(np.float32), equal_nan=True)


def test_what_repeats_another_map_costs_nothing_and_comes_back():
    arrays = local_and_world(height=30, width=40)
    arrays[CONFIDENCE] = np.random.default_rng(1).random((30, 40)).astype(np.float32)
    alone = len(ExactCodec().encode(arrays).data)
    arrays[TWIN] = arrays[CONFIDENCE].copy()
    arrays[DEPTH] = arrays[LOCAL][..., 2].copy()
    encoded = ExactCodec().encode(arrays)
    assert len(encoded.data) < alone + 200
    found = ExactCodec().decode(encoded.data)
    assert np.array_equal(found[TWIN], found[CONFIDENCE])
    assert np.array_equal(found[DEPTH], found[LOCAL][..., 2])


def test_labels_of_a_monocular_teacher_need_no_pointmap():
    rng = np.random.default_rng(0)
    arrays = {DEPTH: rng.random((9, 4)), "prediction.normal": rng.normal(size=(9, 4, 3))}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    found = ExactCodec().decode(ExactCodec().encode(arrays).data)
    assert set(found) == set(arrays)
    for name in arrays:
        assert np.array_equal(found[name], arrays[name].astype(np.float16).astype(np.float32))


def test_poses_and_intrinsics_keep_every_bit():
    pose = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).numpy()
    arrays = {"prediction.world_from_camera": pose, "views.intrinsics": pose[:3, :3].astype(np.float64)}
    found = ExactCodec().decode(ExactCodec().encode(arrays).data)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("cut", [0, 3, 7, 40, -10])
def test_a_blob_that_is_cut_short_is_refused(cut):
    data = ExactCodec().encode(local_and_world()).data
    with pytest.raises(CacheError, match="damaged"):
        unpack_blob(data[:cut])


def test_an_unknown_codec_is_named_with_those_there_are():
    with pytest.raises(CacheError, match=r"unknown cache codec 'fancy'.*exact"):
        get_codec("fancy")
    with pytest.raises(CacheError, match="does not take"):
        get_codec("exact", {"bound": 1})
