import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distill3d.data.centre_crop import centre_crop, place_centre_crop
from distill3d.data.decode import to_unit_range
from distill3d.errors import DataError


@pytest.mark.parametrize("name", ["land", "port", "square", "small"])
def test_the_pixels_are_those_of_the_reference_loader(fixtures, name):
    golden = load_file(fixtures / "dust3r" / "golden.safetensors")
    raw = golden[f"pre.{name}.raw"].numpy()
    found = to_unit_range(place_centre_crop(raw, centre_crop(raw.shape[:2], 128)))
    torch.testing.assert_close(found * 2 - 1, golden[f"pre.{name}.out128"][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "canvas"),
    [((1080, 1920), (288, 512)), ((1920, 1080), (512, 288)), ((3000, 4000), (384, 512)), ((700, 700), (384, 512))],
)
def test_the_longer_side_becomes_512_and_squares_lose_a_quarter(source, canvas):
    assert centre_crop(source).canvas == canvas
    assert centre_crop((700, 700), allow_square=True).canvas == (512, 512)


@pytest.mark.parametrize("source", [(300, 400), (900, 500), (224, 224), (100, 250)])
def test_at_224_the_shorter_side_counts_and_the_crop_is_square(source):
    placement = centre_crop(source, 224)
    assert placement.canvas == (224, 224)
    assert min(placement.resized) == 224


def test_a_square_whose_three_quarters_are_no_whole_patches_is_rounded_down():
    assert centre_crop((500, 500), 144).canvas == (96, 144)


def test_cameras_follow_the_pixels():
    raw = np.zeros((150, 260, 3), dtype=np.uint8)
    raw[70:80, 120:140] = 255  # a blob around pixel (129.5, 74.5)
    placement = centre_crop((150, 260), 128)
    blob = place_centre_crop(raw, placement)[..., 0].astype(float)
    found = [(blob.sum(axis=axis) * np.arange(blob.shape[1 - axis])).sum() / blob.sum() for axis in (0, 1)]
    centre = torch.tensor([[100.0, 0, 129.5], [0, 100, 74.5], [0, 0, 1]])
    moved = placement.to_canvas(centre)
    assert found == pytest.approx([moved[0, 2].item(), moved[1, 2].item()], abs=0.05)


def test_a_photo_too_thin_for_a_patch_is_refused():
    with pytest.raises(DataError, match="10x2000 pixels becomes 3x512"):
        centre_crop((10, 2000))
