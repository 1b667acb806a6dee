import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from distill3d.data import decode
from distill3d.data.decode import photo_size, read_image, read_photo
from distill3d.errors import DataError
from tests.data.pictures import picture, save_picture, upright_tag


def test_pixels_of_a_lossless_photo_are_exact(tmp_path):
    path = save_picture(tmp_path / "a.png", 20, 30)
    image = read_image(path)
    assert image.dtype == torch.float32
    assert torch.equal((image * 255).round().byte().permute(1, 2, 0), torch.from_numpy(picture(20, 30)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    options = {"quality": 100} if suffix in ("jpg", "webp") else {}
    path = save_picture(tmp_path / f"a.{suffix}", 20, 30, exif=upright_tag(orientation), **options)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    assert photo_size(path) == expected.shape[:2] == ((20, 30) if orientation < 5 else (30, 20))
    assert np.array_equal(read_photo(path), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_resized_to_its_upright_size(tmp_path, orientation):
    path = save_picture(tmp_path / "a.jpg", 200, 320, exif=upright_tag(orientation), quality=98)
    size = tuple(length // 8 for length in photo_size(path))
    small = read_photo(path, size)
    assert small.shape == (*size, 3)
    whole = Image.fromarray(read_photo(path)).resize(size[::-1], Image.Resampling.BOX)
    assert np.abs(small.astype(int) - np.asarray(whole)).mean() < 2


def test_orientation_can_be_left_alone(tmp_path):
    path = save_picture(tmp_path / "a.png", 20, 30, exif=upright_tag(6))
    assert photo_size(path, upright=False) == (20, 30)
    assert np.array_equal(read_photo(path, upright=False), picture(20, 30))


def test_damaged_exif_is_no_reason_to_refuse_a_photo(tmp_path):
    path = save_picture(tmp_path / "a.jpg", exif=b"Exif\0\0garbage that is no TIFF header")
    assert photo_size(path) == (24, 32)
    assert read_photo(path).shape == (24, 32, 3)


def test_sixteen_bit_gray_uses_its_full_range(tmp_path):
    ramp = np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    pixels = read_photo(tmp_path / "a.png")
    assert np.abs(pixels[..., 0] - ramp / 257.0).max() <= 0.5
    assert (pixels[..., :1] == pixels).all()


def test_a_dark_sixteen_bit_photo_stays_dark(tmp_path):
    Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").max() == 1


def test_float_photos_are_taken_from_zero_to_one(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "a.tif")
    assert (read_photo(tmp_path / "a.tif") == 128).all()


def test_sixteen_bit_colour_is_cut_to_eight(tmp_path):
    import cv2

    deep = picture(24, 32).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
    assert np.array_equal(read_photo(tmp_path / "a.png"), picture(24, 32))


def test_gray_palette_and_cmyk_become_colour(tmp_path):
    original = Image.fromarray(picture(24, 32))
    original.convert("L").save(tmp_path / "gray.png")
    original.quantize(256).save(tmp_path / "palette.png")
    original.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    original.convert("1").save(tmp_path / "bits.png")
    gray = read_photo(tmp_path / "gray.png")
    assert np.array_equal(gray[..., 0], gray[..., 2])
    assert np.abs(read_photo(tmp_path / "palette.png").astype(int) - picture(24, 32)).mean() < 8
    assert np.abs(read_photo(tmp_path / "cmyk.jpg").astype(int) - picture(24, 32)).mean() < 3
    assert set(np.unique(read_photo(tmp_path / "bits.png"))) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    layered = Image.new("RGBA", (4, 2), (10, 10, 10, 255))
    layered.paste((10, 10, 10, 0), (0, 0, 2, 2))
    if mode == "P":
        layered = Image.new("P", (4, 2), 1)
        layered.putpalette([0, 0, 0, 10, 10, 10])
        layered.paste(0, (0, 0, 2, 2))
        layered.save(tmp_path / "a.png", transparency=0)
    else:
        layered.convert(mode).save(tmp_path / "a.png")
    pixels = read_photo(tmp_path / "a.png")
    assert (pixels[:, :2] == 255).all()
    assert (pixels[:, 2:] == 10).all()


def test_the_first_picture_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 6), (shade, 0, 0)) for shade in (255, 0)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_photo(tmp_path / "a.gif")[..., 0] == 255).all()


def test_a_large_jpeg_is_resized_to_the_same_picture_as_a_plain_resize(tmp_path):
    path = save_picture(tmp_path / "a.jpg", 1203, 1607, quality=95)  # odd sizes: fractions of them are rounded up
    quick = read_photo(path, (90, 120))
    plain = Image.fromarray(read_photo(path)).resize((120, 90), Image.Resampling.LANCZOS)
    assert np.abs(quick.astype(int) - np.asarray(plain)).max() <= 3


def damaged(tmp_path, kind):
    path = tmp_path / "a.jpg"
    if kind == "cut short":
        data = save_picture(path, 200, 300).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif kind == "zero bytes":
        path.touch()
    elif kind == "text":
        path.write_text("this is no photo")
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut short", "a.jpg cannot be decoded .*cut short or damaged.*Copy it again"),
        ("zero bytes", r"a.jpg is empty \(0 bytes\)"),
        ("text", "a.jpg is not a photo that can be recognised"),
        ("folder", "a.jpg is a folder, expected a photo"),
        ("missing", "a.jpg does not exist"),
    ],
)
def test_a_photo_that_cannot_be_read_says_why(tmp_path, kind, words):
    with pytest.raises(DataError, match=words):
        read_photo(damaged(tmp_path, kind))


def test_a_heic_photo_names_the_package_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(decode.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(DataError, match=r"pip install pillow-heif\); or export it as JPEG"):
        read_photo(tmp_path / "IMG_1.HEIC")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "gif"])
def test_damaged_bytes_never_raise_anything_but_our_error(tmp_path, suffix):
    data = save_picture(tmp_path / f"a.{suffix}").read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for trial in range(40):
        broken = bytearray(data[: generator.integers(len(data))] if trial % 2 else data)
        for position in generator.integers(0, min(len(data), 200), size=4):
            if position < len(broken):
                broken[position] = generator.integers(256)
        path = tmp_path / f"b.{suffix}"
        path.write_bytes(broken)
        try:
            if max(photo_size(path)) < 4000:  # a damaged header may promise a picture that fills the memory
                read_photo(path, (8, 8))
        except DataError:
            refused += 1
    assert refused > 0
