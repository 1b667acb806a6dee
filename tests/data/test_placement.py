import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from distill3d.data.decode import resize_pixels
from distill3d.data.fit import ImageFit, canvas_size
from distill3d.data.placement import Placement, find_placement, place_depth, place_image
from distill3d.errors import ConfigError, DataError

SIDES = st.integers(12, 160)
FITS = st.builds(
    ImageFit,
    long_side=st.integers(16, 120),
    multiple=st.sampled_from([1, 8, 14, 16]),
    mode=st.sampled_from(["pad", "crop"]),
)


def brightest_spot(pixels):
    """Centre of mass (x, y) of what is brighter than black."""
    weight = pixels[..., 0].astype(float)
    y, x = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@given(height=SIDES, width=SIDES, fit=FITS, across=st.floats(0.3, 0.7), down=st.floats(0.3, 0.7))
@example(height=97, width=131, fit=ImageFit(long_side=56), across=0.4, down=0.6)
def test_a_projected_point_lands_where_its_dot_lands(height, width, fit, across, down):
    dot = np.array([round(across * (width - 1)), round(down * (height - 1))])
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[dot[1], dot[0]] = 255
    # Antialiasing rings; a soft blob has its centre of mass where the dot is, at any size.
    y, x = np.mgrid[0:height, 0:width]
    sigma = max(2.5, 1.2 * max(height, width) / fit.long_side)
    blob = 255 * np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / (2 * sigma**2))
    pixels = np.repeat(blob[..., None], 3, axis=-1).astype(np.uint8)

    intrinsics = torch.tensor([[90.0, 0.4, width / 3], [0, 80.0, height / 2.2], [0, 0, 1]], dtype=torch.float64)
    point = 2.5 * torch.linalg.inv(intrinsics) @ torch.tensor([*dot, 1.0], dtype=torch.float64)

    canvas = canvas_size([(height, width), (height, width)], fit)
    placement = find_placement((height, width), fit, canvas)
    projected = placement.to_canvas(intrinsics) @ point
    landed = (projected[:2] / projected[2]).numpy()

    margin = 3 * sigma * max(placement.scale)
    inside = all(margin < landed[axis] < canvas[1 - axis] - 1 - margin for axis in (0, 1))
    edges = min(dot[0], dot[1], width - 1 - dot[0], height - 1 - dot[1]) > 3 * sigma
    if inside and edges:
        placed = place_image(resize_pixels(pixels, placement.resized), placement)
        placed[~placement.valid().numpy()] = 0
        assert np.abs(brightest_spot(placed) - landed).max() < 0.25

    # The rule itself, without any picture.
    (vertical, horizontal), (top, left) = placement.scale, placement.offset
    rule = (np.array(dot) + 0.5) * (horizontal, vertical) - 0.5 + (left, top)
    assert np.allclose(landed, rule, atol=1e-9)
    assert torch.allclose(placement.to_source(placement.to_canvas(intrinsics)), intrinsics, atol=1e-9)


def test_the_blob_test_really_looks_at_pictures():
    placement = find_placement((60, 80), ImageFit(long_side=56, multiple=14), (42, 56))
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[28:31, 49:52] = 255  # centred on (50, 29)
    spot = brightest_spot(place_image(resize_pixels(pixels, placement.resized), placement))
    assert np.abs(spot - (50.5 * 0.7 - 0.5, 29.5 * 0.7 - 0.5)).max() < 0.05


@given(sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6), fit=FITS)
def test_the_canvas_is_the_smallest_box_of_multiples_that_holds_all(sizes, fit):
    canvas = canvas_size(sizes, fit)
    assert canvas[0] % fit.multiple == canvas[1] % fit.multiple == 0
    placements = [find_placement(size, fit, canvas) for size in sizes]
    if fit.mode == "pad":
        for axis in (0, 1):
            largest = max(placement.resized[axis] for placement in placements)
            assert largest <= canvas[axis] < largest + fit.multiple
        assert all(max(placement.resized) == fit.long_side for placement in placements)
    else:
        assert all(placement.valid().all() for placement in placements)
        assert max(canvas) <= max(fit.long_side, fit.multiple)


@given(size=st.tuples(SIDES, SIDES), fit=FITS, canvas=st.tuples(st.integers(14, 90), st.integers(14, 90)))
def test_any_photo_fits_any_canvas(size, fit, canvas):
    placement = find_placement(size, fit, canvas)
    valid = placement.valid()
    assert valid.shape == canvas
    assert valid.any()
    if fit.mode == "pad":
        assert valid.sum() == placement.resized[0] * placement.resized[1]
    else:
        assert valid.all()


def test_known_sizes():
    assert canvas_size([(480, 640)] * 3, ImageFit()) == (392, 518)
    assert canvas_size([(480, 640), (640, 480)], ImageFit()) == (518, 518)
    assert canvas_size([(480, 640)], ImageFit(mode="crop")) == (378, 518)
    assert canvas_size([(3024, 4032)], ImageFit(long_side=224)) == (168, 224)
    assert canvas_size([(100, 4000)], ImageFit(long_side=56)) == (14, 56)


@pytest.mark.parametrize("settings", [{"multiple": 0}, {"long_side": 8}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError, match="expected"):
        ImageFit(**settings)


@given(height=SIDES, width=SIDES, fit=FITS)
def test_depth_is_never_blended(height, width, fit):
    depth = np.random.default_rng(height * width).integers(1, 1000, (height, width)).astype(np.float32)
    canvas = canvas_size([(height, width)], fit)
    placement = find_placement((height, width), fit, canvas)
    placed = place_depth(depth, placement)
    valid = placement.valid()
    assert set(placed[valid].tolist()) <= set(depth.ravel().tolist())
    assert (placed[~valid] == 0).all()


def test_depth_lands_where_the_photo_lands():
    placement = Placement(source=(4, 6), resized=(8, 12), offset=(3, 1), canvas=(14, 14))
    depth = np.arange(1, 25, dtype=np.float32).reshape(4, 6)
    placed = place_depth(depth, placement).numpy()
    assert np.array_equal(placed[3:11, 1:13], depth.repeat(2, 0).repeat(2, 1))
    smaller = Placement(source=(8, 12), resized=(4, 6), offset=(0, 0), canvas=(4, 6))
    assert np.array_equal(place_depth(depth, smaller).numpy(), depth)  # depth of another size than its photo


def test_unknown_and_impossible_depth_becomes_zero():
    placement = Placement(source=(2, 2), resized=(2, 2), offset=(0, 0), canvas=(2, 2))
    depth = np.array([[np.nan, np.inf], [-1.0, 2.0]], dtype=np.float32)
    assert place_depth(depth, placement).tolist() == [[0, 0], [0, 2]]


def test_depth_of_another_aspect_is_refused():
    placement = Placement(source=(30, 40), resized=(30, 40), offset=(0, 0), canvas=(30, 40))
    with pytest.raises(DataError, match="30x40 does not belong to a photo of 40x30"):
        place_depth(np.ones((40, 30), dtype=np.float32), placement)
