import base64
import io

import numpy as np
import pytest
from PIL import Image

from distill3d.viewer.maps import (
    UNKNOWN,
    colorize,
    confidence_levels,
    jpeg_uri,
    map_levels,
    map_uri,
    median_scale,
    ramp,
    relative_error,
    shared_range,
    shrink,
    usable,
)

NOTHING = [np.zeros((3, 4), np.float32), np.full((3, 4), np.nan, np.float32)]


def image_of(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_levels_run_evenly_from_low_to_high_and_clip_beyond():
    levels = map_levels(np.array([[0.0, 1.0, 2.0, 3.0, 9.0, np.nan]]), (1.0, 3.0))
    assert levels.tolist() == [[0, 0, 127, 254, 254, UNKNOWN]]


def test_log_levels_give_equal_ratios_equal_steps():
    levels = map_levels(np.array([[1.0, 10.0, 100.0, 0.0, -1.0]]), (1.0, 100.0), log=True)
    assert levels.tolist() == [[0, 127, 254, UNKNOWN, UNKNOWN]]


def test_a_pixel_outside_the_mask_is_transparent():
    levels = map_levels(np.ones((1, 2)), (0.0, 2.0), valid=np.array([[True, False]]))
    picture = colorize(levels, "error")
    assert picture[0, :, 3].tolist() == [255, 0]
    assert picture[0, 0, :3].tolist() == ramp("error")[127].tolist()


@pytest.mark.parametrize("empty", NOTHING)
def test_maps_without_any_value_become_transparent_pictures(empty):
    assert shared_range([empty]) is None
    levels = map_levels(empty, shared_range([empty]), valid=usable(empty))
    assert (levels == UNKNOWN).all()
    assert np.asarray(image_of(map_uri(levels, "depth")).convert("RGBA"))[..., 3].max() == 0
    assert median_scale(empty, np.ones((3, 4), np.float32)) == 1.0
    assert np.isnan(relative_error(empty, np.ones((3, 4), np.float32))).all()


@pytest.mark.parametrize("empty", [NOTHING[1], -np.ones((3, 4))])
def test_confidence_without_any_value_has_a_range_all_the_same(empty):
    levels, bounds = confidence_levels(empty)
    assert levels.max() == 0
    assert bounds == (1.0, 1.0)


def test_constant_confidence_is_one_level():
    levels, _ = confidence_levels(np.full(7, 2.5))
    assert len(np.unique(levels)) == 1


def test_a_shared_range_covers_all_maps_but_for_strays():
    rng = np.random.default_rng(0)
    maps = [rng.uniform(1, 2, (50, 50)), rng.uniform(3, 4, (50, 50))]
    maps[0][0, 0] = 1e6
    low, high = shared_range(maps)
    assert 1 <= low < 1.1
    assert 3.9 < high <= 4


def test_the_embedded_picture_shows_the_ramp():
    levels = np.array([[0, 254, UNKNOWN]], dtype=np.uint8)
    pixels = np.asarray(image_of(map_uri(levels, "depth")).convert("RGBA"))
    np.testing.assert_array_equal(pixels[:, :2], colorize(levels, "depth")[:, :2])
    assert pixels[0, 2, 3] == 0


def test_median_scale_ignores_holes_and_strays():
    depth = np.full((4, 5), 2.0, np.float32)
    reference = depth * 3
    depth[0, 0], reference[1, 1], reference[2, 2] = 0, np.nan, 1000
    assert median_scale(depth, reference) == pytest.approx(3)


def test_relative_error_is_relative_to_the_reference():
    error = relative_error(np.array([[1.1, 0.0]], np.float32), np.array([[1.0, 1.0]], np.float32))
    assert error[0, 0] == pytest.approx(0.1, abs=1e-6)
    assert np.isnan(error[0, 1])


def test_shrink_keeps_the_aspect_and_never_enlarges():
    photo = np.zeros((30, 60, 3), np.uint8)
    assert shrink(photo, 20).shape == (10, 20, 3)
    assert shrink(photo, 100) is photo
    assert image_of(jpeg_uri(photo)).size == (60, 30)
