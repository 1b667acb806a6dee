"""The codec `compact`: every finite point within the bound, everything else bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distill3d.cache import CacheReader, CacheWriter
from distill3d.cache.blob import unpack_blob
from distill3d.cache.codec import get_codec
from distill3d.cache.compact import CompactCodec
from distill3d.cache.record import DEPTH, LOCAL, WORLD
from distill3d.cache.similarity import SCALE
from distill3d.errors import CacheError
from distill3d.types import Prediction, Views

from .samples import make_sample, random_rotations

BOUND = 2.0**-11
CONFIDENCE, TWIN, NORMAL = "prediction.confidence_world", "prediction.confidence_camera", "prediction.normal"


def scene(
    height: int = 24, width: int = 40, noise: float = 5e-4, rays: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A wall, a box before it and noise: local map, rotation and camera of a world twice as large."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:height, :width].astype(np.float64)
    depth = 4 + 0.01 * column + 0.02 * row
    depth[height // 3 : height // 2, width // 4 : width // 2] = 1.5
    points = np.stack([(column - width / 2) / 50, (row - height / 2) / 50, np.ones_like(row)], axis=-1)
    points[..., :2] += rays * rng.standard_normal((height, width, 2))
    points *= (depth * np.exp(noise * rng.standard_normal(depth.shape)))[..., None]
    import torch

    rotation = random_rotations(1, torch.Generator().manual_seed(seed))[0].numpy()
    return points.astype(np.float32), rotation, np.array([3.0, -1.0, 0.5])


def as_world(local: np.ndarray, rotation: np.ndarray, camera: np.ndarray) -> np.ndarray:
    return (2 * local.astype(np.float64) @ rotation.T + camera).astype(np.float32)


def relative_error(found: np.ndarray, points: np.ndarray, camera: np.ndarray | float = 0.0) -> np.ndarray:
    """Of the finite points."""
    finite = np.isfinite(points).all(axis=-1)
    error = np.linalg.norm(found[finite].astype(np.float64) - points[finite], axis=-1)
    return error / np.linalg.norm(points[finite] - camera, axis=-1)


def roundtrip(arrays: dict[str, np.ndarray], **settings_of_codec: float) -> dict[str, np.ndarray]:
    codec = CompactCodec(**settings_of_codec)
    return codec.decode(codec.encode(arrays).data)


@pytest.mark.parametrize("noise", [0.0, 5e-4, 3e-3])
@pytest.mark.parametrize("rays", [0.0, 1e-4, 2e-3])
@pytest.mark.parametrize("bound", [2.0**-7, BOUND, 2.0**-15])
def test_the_bound_holds_in_both_maps_and_is_used(noise, rays, bound):
    local, rotation, camera = scene(noise=noise, rays=rays)
    world = as_world(local, rotation, camera)
    codec = CompactCodec(bound=bound)
    encoded = codec.encode({LOCAL: local, WORLD: world})
    found = codec.decode(encoded.data)
    assert encoded.from_similarity
    assert found[LOCAL].dtype == found[WORLD].dtype == np.float32
    assert relative_error(found[LOCAL], local).max() <= bound
    assert relative_error(found[WORLD], world, camera).max() <= bound * (1 + 1e-6)
    assert relative_error(found[LOCAL], local).max() > 0.5 * bound


@given(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=14).flatmap(
        lambda shape: hnp.arrays(np.float32, (*shape, 3), elements=st.floats(width=32))
    ),
    st.sampled_from([BOUND, 2.0**-16]),
)
@settings(max_examples=40, deadline=None)
def test_any_points_are_within_the_bound_or_the_same(points, bound):
    found = roundtrip({LOCAL: points, WORLD: points[..., [1, 2, 0]]}, bound=bound)
    camera = found.get("similarity.translation", np.zeros(3))
    for name, expected, origin in ((LOCAL, points, 0), (WORLD, points[..., [1, 2, 0]], camera)):
        finite = np.isfinite(expected).all(axis=-1)
        wide = expected.astype(np.float64)
        error = np.linalg.norm(found[name][finite].astype(np.float64) - wide[finite], axis=-1)
        # A frame that is fitted, not given, has its camera where rounding puts it.
        slack = 1e-15 * np.abs(wide[finite]).max(initial=0)
        assert (error <= bound * 1.0001 * np.linalg.norm(wide[finite] - origin, axis=-1) + slack).all()
        # A whole map may be kept as float16 (half of its smallest step apart); what is not finite stays what it was.
        assert np.array_equal(np.isfinite(found[name]).all(axis=-1), finite)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 5), (33, 20), (20, 33), (64, 65)])
def test_any_size_in_either_orientation(size):
    local, rotation, camera = scene(*size)
    world = as_world(local, rotation, camera)
    arrays = {LOCAL: local, WORLD: world, CONFIDENCE: 1 + local[..., 2], DEPTH: local[..., 2] * 1.5}
    found = roundtrip(arrays)
    assert {name: array.shape for name, array in found.items() if name in arrays} == {
        name: array.shape for name, array in arrays.items()
    }
    assert relative_error(found[LOCAL], local).max() <= BOUND
    assert relative_error(found[WORLD], world, camera).max() <= BOUND * (1 + 1e-6)


def test_a_sky_of_nan_infinite_or_far_points_costs_little_and_comes_back():
    local, rotation, camera = scene(60, 80)
    world = as_world(local, rotation, camera)
    plain = len(CompactCodec().encode({LOCAL: local, WORLD: world}).data)
    for sky in (np.nan, np.inf):
        for array in (local, world):
            array[:20] = sky
        encoded = CompactCodec().encode({LOCAL: local, WORLD: world})
        found = CompactCodec().decode(encoded.data)
        assert len(encoded.data) < 1.3 * plain
        assert np.array_equal(found[LOCAL][:20], local[:20], equal_nan=True)
        assert np.array_equal(found[WORLD][:20], world[:20], equal_nan=True)
        assert relative_error(found[WORLD], world, camera).max() <= BOUND * (1 + 1e-6)
    local[:20] = np.float32([1e5, 2e5, 1e6])
    assert relative_error(roundtrip({LOCAL: local})[LOCAL], local).max() <= BOUND


def test_points_behind_the_camera_keep_every_bit():
    local, _, _ = scene()
    local[3:5, :7] *= -1
    local[8, 8] = (1.0, 0.0, 0.0)
    local[9, 9] = 0
    found = roundtrip({LOCAL: local})[LOCAL]
    assert np.array_equal(found[3:5, :7], local[3:5, :7])
    assert np.array_equal(found[8, 8], local[8, 8])
    assert np.array_equal(found[9, 9], local[9, 9])
    assert relative_error(found, np.where(local == 0, np.nan, local)).max() <= BOUND


def test_a_panorama_is_kept_whole_within_the_bound():
    angle = np.random.default_rng(0).normal(size=(20, 30, 3)).astype(np.float32)
    for bound, kind in ((BOUND, np.float16), (2.0**-14, np.float32)):
        stored = unpack_blob(CompactCodec(bound=bound).encode({LOCAL: angle}).data).arrays
        assert stored[LOCAL].dtype == kind
        assert relative_error(roundtrip({LOCAL: angle}, bound=bound)[LOCAL], angle).max() <= bound


@pytest.mark.parametrize("with_local", [True, False])
def test_a_world_map_of_its_own_is_within_the_bound_of_its_distance_from_the_camera(with_local):
    local, rotation, camera = scene(noise=5e-4)
    other, _, _ = scene(noise=5e-4, seed=5)
    world = as_world(other, rotation, camera)
    world[2, 3] = np.nan
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3], pose[:3, 3] = rotation, camera
    arrays = {WORLD: world, "prediction.world_from_camera": pose}
    if with_local:
        arrays[LOCAL] = local
    encoded = CompactCodec().encode(arrays)
    assert not encoded.from_similarity
    found = CompactCodec().decode(encoded.data)
    assert SCALE not in found
    assert relative_error(found[WORLD], world, camera).max() <= BOUND * 1.001
    assert np.isnan(found[WORLD][2, 3]).all()
    assert np.array_equal(found["prediction.world_from_camera"], pose)
    stored = sum(row.nbytes for row in (world,))
    assert len(encoded.data) < stored  # with what JSON costs even on so small a map


def test_a_world_map_near_its_similarity_costs_little_more_than_the_local_map():
    local, rotation, camera = scene(100, 140, noise=3e-3)
    alone = len(CompactCodec().encode({LOCAL: local}).data)
    bent = local * (1 + 0.002 * np.linspace(0, 1, 140, dtype=np.float32)[None, :, None])
    arrays = {LOCAL: local, WORLD: as_world(bent, rotation, camera)}
    encoded = CompactCodec().encode(arrays)
    assert not encoded.from_similarity
    assert len(encoded.data) < 1.8 * alone
    few = as_world(local, rotation, camera)
    few[0, 1:3] += 0.5
    encoded = CompactCodec().encode({LOCAL: local, WORLD: few})
    assert encoded.from_similarity  # and the few are escaped
    assert np.array_equal(CompactCodec().decode(encoded.data)[WORLD][0, 1:3], few[0, 1:3])


@given(hnp.arrays(np.float32, (6, 9), elements=st.floats(width=32, min_value=2.0**-20, max_value=2.0**20)))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("step", [0.0, 0.01])
def test_a_confidence_is_within_half_a_level_of_its_own_range(step, values):
    found = roundtrip({CONFIDENCE: values}, confidence_step=step)[CONFIDENCE]
    level = max(np.log(float(values.max()) / float(values.min())) / 255, step)
    assert (np.abs(np.log(found.astype(np.float64) / values)) <= 0.501 * level + 1e-6).all()


def test_confidences_of_any_sign_and_not_finite_ones():
    values = np.linspace(-3, 5, 54, dtype=np.float32).reshape(6, 9)
    values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, -np.inf
    found = roundtrip({CONFIDENCE: values})[CONFIDENCE]
    finite = np.isfinite(values)
    assert np.array_equal(found[~finite], values[~finite], equal_nan=True)
    assert np.abs(found[finite] - values[finite]).max() <= 0.501 * 8 / 255
    positive = np.linspace(1, 50, 54, dtype=np.float32).reshape(6, 9)
    positive[0] = 0  # of masked pixels
    found = roundtrip({CONFIDENCE: positive})[CONFIDENCE]
    assert not found[0].any()
    assert np.abs(np.log(found[1:] / positive[1:])).max() < np.log(50) / 500
    for constant in (0.0, 1.0, np.nan):
        flat = np.full((6, 9), constant, dtype=np.float32)
        assert np.array_equal(roundtrip({CONFIDENCE: flat})[CONFIDENCE], flat, equal_nan=True)


def test_labels_of_a_monocular_teacher():
    rng = np.random.default_rng(0)
    depth = np.exp(rng.normal(size=(30, 40))).astype(np.float32)
    depth[:4], depth[5, 5], depth[6, 6] = 0, np.nan, -1
    normal = rng.normal(size=(30, 40, 3))
    normal = (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32)
    normal[0, 0], normal[1, 1] = 0, np.nan
    found = roundtrip({DEPTH: depth, NORMAL: normal})
    known = depth > 0
    assert np.abs(found[DEPTH][known] / depth[known] - 1).max() <= BOUND
    assert np.array_equal(found[DEPTH][~known], depth[~known], equal_nan=True)
    assert np.array_equal(found[NORMAL][0, 0], normal[0, 0])
    assert np.isnan(found[NORMAL][1, 1]).all()
    inside = np.linalg.norm(normal, axis=-1) > 0.5
    cross = np.linalg.norm(np.cross(found[NORMAL][inside], normal[inside]), axis=-1)
    assert np.rad2deg(np.arcsin(cross)).max() <= 0.2
    assert np.rad2deg(np.arcsin(cross)).max() > 0.05
    for axis in np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32):
        flat = np.broadcast_to(axis, (4, 5, 3)).copy()
        assert np.allclose(roundtrip({NORMAL: flat})[NORMAL], flat, atol=1e-3)


def test_what_is_not_a_map_is_as_in_the_exact_codec():
    local, _, _ = scene(10, 12)
    arrays = {
        LOCAL: local,
        DEPTH: local[..., 2].copy(),
        CONFIDENCE: local[..., 2] + 1,
        TWIN: local[..., 2] + 1,
        "prediction.valid": local[..., 0] > 0,
        "prediction.metric_scale": np.asarray(2.5, dtype=np.float32),
        "prediction.descriptors": np.random.default_rng(0).normal(size=(10, 12, 24)).astype(np.float32),
        "views.intrinsics": np.random.default_rng(1).normal(size=(3, 3)),
    }
    encoded = CompactCodec().encode(arrays)
    assert not any(name.startswith((DEPTH, TWIN)) for name in unpack_blob(encoded.data).arrays)
    found = CompactCodec().decode(encoded.data)
    assert set(found) == set(arrays)
    assert np.array_equal(found[DEPTH], found[LOCAL][..., 2])
    assert np.array_equal(found[TWIN], found[CONFIDENCE])
    for name in ("prediction.valid", "prediction.metric_scale", "views.intrinsics"):
        assert found[name].dtype == arrays[name].dtype
        assert np.array_equal(found[name], arrays[name])
    assert np.array_equal(found["prediction.descriptors"], arrays["prediction.descriptors"].astype(np.float16))


def test_equal_maps_give_equal_bytes_and_settings_are_on_record():
    local, _, _ = scene()
    codec = CompactCodec(bound=1e-3)
    assert codec.encode({LOCAL: local}).data == codec.encode({LOCAL: local.copy()}).data
    assert get_codec("compact", codec.settings()).settings() == codec.settings()
    for bad in ({"bound": 0.0}, {"bound": 0.5}, {"normal_deg": 0.0}):
        with pytest.raises(CacheError, match="expected"):
            get_codec("compact", bad)


def test_a_damaged_blob_is_refused_in_words():
    local, _, _ = scene()
    data = bytearray(CompactCodec().encode({LOCAL: local, CONFIDENCE: local[..., 2]}).data)
    with pytest.raises(CacheError, match="damaged"):
        CompactCodec().decode(bytes(data[:-40]))
    at = data.index(b'"kind":"points"')
    data[at : at + 15] = b'"kind":"poimts"'
    with pytest.raises(CacheError, match="damaged"):
        CompactCodec().decode(bytes(data))


def test_a_cache_of_portrait_and_landscape_samples_of_any_number_of_views(tmp_path):
    shapes = {"a": (2, 9, 14), "b": (1, 14, 9), "c": (5, 1, 11)}
    with CacheWriter(tmp_path / "c", codec="compact") as writer:
        for key, (views, height, width) in shapes.items():
            writer.add(key, *make_sample(1, views=views, height=height, width=width))
    reader = CacheReader(tmp_path / "c")
    assert reader.verify() == []
    for key, shape in shapes.items():
        assert reader.shape(key) == shape
        sample, prediction = make_sample(1, views=shape[0], height=shape[1], width=shape[2])
        found = reader.load(key)
        assert isinstance(found.views, Views)
        assert isinstance(found.prediction, Prediction)
        assert (found.views.images == sample.images).all()
        local = prediction.pointmap_camera[0].numpy()
        assert relative_error(found.prediction.pointmap_camera[0].numpy(), local).max() <= BOUND
        assert (found.valid == (sample.valid & prediction.valid)).all()
