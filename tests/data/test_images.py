import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.data.images import ImageFit, load_views
from distill3d.data.placement import PAD_COLOUR
from distill3d.errors import DataError
from tests.data.pictures import picture, save_picture, upright_tag

SMALL = ImageFit(long_side=56, multiple=14)


def folder_of(tmp_path, *sizes):
    return [save_picture(tmp_path / f"{index}.png", *size, seed=index) for index, size in enumerate(sizes)]


def test_equal_photos_share_a_canvas_with_little_padding(tmp_path):
    loaded = load_views(folder_of(tmp_path, (30, 40), (30, 40), (30, 40)), SMALL)
    assert loaded.views.images.shape == (1, 3, 3, 42, 56)
    assert loaded.views.images.dtype == torch.float32
    assert loaded.views.valid.all()
    assert loaded.names == ("0.png", "1.png", "2.png")
    assert loaded.skipped == ()


def test_padding_has_its_colour_and_is_not_valid(tmp_path):
    loaded = load_views(folder_of(tmp_path, (20, 40), (40, 20)), SMALL)
    images, valid = loaded.views.images[0], loaded.views.valid[0]
    assert images.shape == (2, 3, 56, 56)
    assert valid.sum(dim=(1, 2)).tolist() == [28 * 56, 28 * 56]
    padding = (images.permute(0, 2, 3, 1)[~valid] * 255).round()
    assert torch.equal(padding, torch.tensor(PAD_COLOUR).float().expand_as(padding))


def test_images_are_exact_multiples_of_eight_bit_steps(tmp_path):
    images = load_views(folder_of(tmp_path, (17, 40), (33, 20)), SMALL).views.images
    assert torch.equal((images * 255).round() / 255, images)


def test_every_photo_keeps_its_aspect(tmp_path):
    loaded = load_views(folder_of(tmp_path, (300, 400), (640, 360), (100, 900)), ImageFit())
    for placement in loaded.placements:
        vertical, horizontal = placement.scale
        # Rounding the short side to whole pixels is all that may differ.
        assert abs(vertical / horizontal - 1) < 0.5 / min(placement.resized) + 1e-9


def test_crop_fills_the_canvas_of_the_most_common_shape(tmp_path):
    paths = folder_of(tmp_path, (40, 30), (30, 40), (30, 40))
    loaded = load_views(paths, ImageFit(long_side=60, multiple=14, mode="crop"))
    assert loaded.views.images.shape == (1, 3, 3, 42, 56)
    assert loaded.views.valid.all()
    assert loaded.placements[0].offset[0] < 0  # the portrait photo stands over


def test_a_broken_file_is_left_out_and_listed_and_does_not_shape_the_canvas(tmp_path):
    paths = folder_of(tmp_path, (30, 40), (200, 100), (30, 40))
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[: len(data) // 2])  # its header is sound
    empty = tmp_path / "empty.jpg"
    empty.touch()
    for mode in ("pad", "crop"):
        loaded = load_views([*paths, empty], ImageFit(long_side=56, multiple=14, mode=mode))
        assert loaded.views.images.shape == (1, 2, 3, 42, 56)
        assert loaded.names == ("0.png", "2.png")
        assert [skipped.path for skipped in loaded.skipped] == [str(paths[1]), str(empty)]
        assert "cut short" in loaded.skipped[0].reason
        assert "0 bytes" in loaded.skipped[1].reason


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        (0, 0, "There are no photos, expected at least 2"),
        (1, 0, "Found only 1 photo, expected at least 2. Take more photos"),
        (1, 2, "Only 1 photo of 3 can be used.*\n.*bad0.jpg is empty"),
        (0, 7, "Only 0 photos of 7 can be used"),
    ],
)
def test_too_few_photos_say_what_was_found(tmp_path, good, bad, words):
    paths = folder_of(tmp_path, *[(30, 40)] * good)
    for index in range(bad):
        paths.append(tmp_path / f"bad{index}.jpg")
        paths[-1].touch()
    with pytest.raises(DataError, match=words):
        load_views(paths, SMALL)


def test_one_photo_is_enough_for_those_who_need_one(tmp_path):
    assert load_views(folder_of(tmp_path, (30, 40)), SMALL, at_least=1).views.images.shape[1] == 1


def test_the_same_photo_twice_is_kept_twice(tmp_path):
    (path,) = folder_of(tmp_path, (30, 40))
    copy = tmp_path / "copy.png"
    shutil.copy(path, copy)
    loaded = load_views([path, path, copy], SMALL)
    assert torch.equal(loaded.views.images[0, 0], loaded.views.images[0, 2])
    assert loaded.names == ("0.png", "2_0.png", "copy.png")


def test_names_of_photos_from_different_folders_stay_apart(tmp_path):
    paths = [save_picture(tmp_path / folder / "1.png") for folder in "ab"]
    assert load_views(paths, SMALL).names == ("a_1.png", "b_1.png")


def test_a_given_canvas_is_kept_and_photos_shrink_to_fit(tmp_path):
    loaded = load_views(folder_of(tmp_path, (30, 40), (40, 30)), SMALL, canvas=(42, 56))
    assert loaded.views.images.shape[-2:] == (42, 56)
    assert loaded.placements[1].resized == (42, 32)


def test_upright_photos_and_turned_ones_agree(tmp_path):
    upright = save_picture(tmp_path / "a.png", 30, 40)
    turned = tmp_path / "b.png"
    # Orientation 6 asks for a quarter turn clockwise; the stored picture is turned the other way.
    Image.fromarray(np.rot90(picture(30, 40), 1)).save(turned, exif=upright_tag(6))
    images = load_views([upright, turned], SMALL).views.images
    assert (images[0, 0] - images[0, 1]).abs().max() < 2.5 / 255  # PIL rounds between its two passes


@pytest.mark.parametrize(("name", "count"), [("buddha", 13), ("charuco_desk", 7)])
def test_real_photos_load(shared_data, name, count):
    paths = sorted((shared_data / name / "images").iterdir())
    loaded = load_views(paths, ImageFit(long_side=224))
    assert loaded.views.images.shape == (1, count, 3, 126, 224)
    assert loaded.views.valid.all()
    assert loaded.views.images.std(dim=(0, 2, 3, 4)).min() > 0.05


def test_real_portrait_and_landscape_photos_mix_with_a_broken_one_among_them(shared_data, tmp_path):
    names = ["berlin_01.jpg", "chelsea.jpg", "astronaut.jpg", "lund_04.jpg"]
    paths = [shared_data / "photos" / name for name in names]
    with Image.open(paths[0]) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "portrait.jpg")
    data = paths[1].read_bytes()
    (tmp_path / "broken.jpg").write_bytes(data[: len(data) // 3])
    loaded = load_views([*paths, tmp_path / "portrait.jpg", tmp_path / "broken.jpg"], ImageFit(long_side=224))
    assert loaded.views.images.shape == (1, 5, 3, 224, 224)
    assert [skipped.path for skipped in loaded.skipped] == [str(tmp_path / "broken.jpg")]
    assert 0.5 < loaded.views.valid.float().mean() < 1
