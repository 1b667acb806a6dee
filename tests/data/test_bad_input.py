"""What becomes of the files that real folders hold: each has a stated behaviour."""

import io
import logging
import os
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms

from distill3d.data.decode import read_photo
from distill3d.data.fit import ImageFit
from distill3d.data.frames import read_depth
from distill3d.data.groups import load_group
from distill3d.data.manifest import BuildOptions, build, build_manifest, load_manifest
from distill3d.data.sampling import ViewGroup
from distill3d.data.verify import verify_files
from distill3d.errors import DataError
from tests.data.pictures import picture, save_picture, upright_tag


def three(folder):
    for number in range(3):
        save_picture(folder / f"{number}.jpg", seed=number)
    return folder


@pytest.mark.parametrize("verify", [False, True])
def test_a_jpeg_cut_short_is_found_when_it_is_decoded(tmp_path, verify):
    data = (three(tmp_path) / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(data[:-60])
    manifest, skipped = build_manifest(tmp_path, verify=verify)
    assert len(manifest) == (2 if verify else 3)
    if not verify:
        skipped = verify_files(manifest)
    assert [entry.path for entry in skipped] == ["1.jpg"]
    assert "cut short or damaged" in skipped[0].reason


def test_empty_files_and_wrong_kinds_are_skipped_and_told(tmp_path):
    three(tmp_path)
    (tmp_path / "4.jpg").touch()
    (tmp_path / "5.png").write_text("<html>not found</html>")
    manifest, skipped = build_manifest(tmp_path)
    assert len(manifest) == 3
    reasons = {entry.path: entry.reason for entry in skipped}
    assert "is empty (0 bytes)" in reasons["4.jpg"]
    assert "not a photo that can be recognised" in reasons["5.png"]


def test_a_photo_with_the_wrong_ending_is_read_for_what_it_is(tmp_path):
    Image.fromarray(picture(24, 32)).save(tmp_path / "really_png.jpg", "PNG")
    manifest, skipped = build_manifest(tmp_path)
    assert (len(manifest), skipped) == (1, ())
    assert np.array_equal(read_photo(tmp_path / "really_png.jpg"), picture(24, 32))


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", "jpg"), ("RGBA", "png"), ("LA", "png"), ("P", "gif"), ("L", "jpg"), ("1", "png")]
)
def test_every_kind_of_colour_becomes_rgb(tmp_path, mode, suffix):
    Image.fromarray(picture(24, 32)).convert(mode).save(tmp_path / f"a.{suffix}")
    manifest, skipped = build_manifest(tmp_path)
    assert skipped == ()
    views = load_group(manifest, ViewGroup(tmp_path.name, (0,)), ImageFit(long_side=28))
    assert views.images.shape[2] == 3


def test_sixteen_bits_and_animations_are_read(tmp_path):
    Image.fromarray(np.full((24, 32), 257 * 100, np.uint16)).save(tmp_path / "0.png")
    frames = [Image.fromarray(picture(24, 32, seed)) for seed in range(3)]
    frames[0].save(tmp_path / "1.webp", save_all=True, append_images=frames[1:], lossless=True)
    manifest, _ = build_manifest(tmp_path)
    assert (read_photo(tmp_path / "0.png") == 100).all()
    assert np.array_equal(read_photo(tmp_path / "1.webp"), picture(24, 32, 0))
    assert len(manifest) == 2


def test_exif_turns_photos_and_sizes_may_be_mixed(tmp_path):
    Image.fromarray(picture(24, 32)).save(tmp_path / "0.jpg", exif=upright_tag(6))
    save_picture(tmp_path / "1.jpg", 40, 20)
    manifest, _ = build_manifest(tmp_path)
    assert [(row.height, row.width) for row in manifest.rows()] == [(32, 24), (40, 20)]
    views = load_group(manifest, ViewGroup(tmp_path.name, (0, 1)), ImageFit(long_side=28))
    assert views.valid[0, 0].sum() > views.valid[0, 1].sum() > 0


def test_a_photo_in_display_p3_becomes_srgb(tmp_path):
    """A saturated green of a wide space is another number in sRGB; a profile of sRGB changes nothing."""
    pixels = np.full((8, 8, 3), (60, 200, 60), np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "srgb.png", icc_profile=srgb)
    assert np.array_equal(read_photo(tmp_path / "srgb.png"), pixels)
    Image.fromarray(pixels).save(tmp_path / "broken.png", icc_profile=b"no profile")
    assert np.array_equal(read_photo(tmp_path / "broken.png"), pixels)
    wide = _wide_profile(srgb)
    Image.fromarray(pixels).save(tmp_path / "wide.png", icc_profile=wide)
    red, green, blue = read_photo(tmp_path / "wide.png")[0, 0]
    assert red < 50
    assert abs(int(green) - 200) < 15
    assert blue < 75


def _wide_profile(srgb):
    """The profile of sRGB with the red primary moved further out, as in a wide space, and another name."""
    data = bytearray(srgb)
    count = int.from_bytes(data[128:132], "big")
    for tag in range(count):
        name, offset, size = (bytes(data[at : at + 4]) for at in range(132 + 12 * tag, 144 + 12 * tag, 4))
        start, length = int.from_bytes(offset, "big"), int.from_bytes(size, "big")
        if name == b"desc":
            text = bytes(data[start : start + length])
            data[start : start + length] = text.replace("sRGB".encode("utf-16-be"), "WIDE".encode("utf-16-be")).replace(
                b"sRGB", b"WIDE"
            )
        if name == b"gXYZ":  # green of Display P3: less red than that of sRGB
            for axis, value in enumerate((0.2919, 0.6922, 0.0419)):
                data[start + 8 + 4 * axis : start + 12 + 4 * axis] = round(value * 65536).to_bytes(4, "big")
        if name == b"rXYZ":
            for axis, value in enumerate((0.5151, 0.2412, -0.0011)):
                data[start + 8 + 4 * axis : start + 12 + 4 * axis] = round(value * 65536).to_bytes(
                    4, "big", signed=True
                )
    return bytes(data)


def test_names_of_any_letters_and_length_survive(tmp_path):
    names = ["Straße 1 ü.jpg", "日本語🗼.jpg", "a b'c\"d%20.jpg", "x" * 200 + ".jpg"]
    for seed, name in enumerate(names):
        save_picture(tmp_path / "Größe/写真" / name, seed=seed)
    manifest, skipped = build_manifest(tmp_path)
    assert skipped == ()
    path = manifest.save(tmp_path / "m.parquet")
    loaded = load_manifest(path)
    assert {row.image.path.rsplit("/", 1)[1] for row in loaded.rows()} == set(names)
    assert verify_files(loaded) == ()


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system allows UTF-8 alone")
def test_a_name_that_is_no_text_is_skipped_and_told(tmp_path):
    three(tmp_path)
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.jpg", "wb") as file:  # noqa: PTH123
        file.write((tmp_path / "0.jpg").read_bytes()[:-1] + b"x")
    manifest, skipped = build_manifest(tmp_path)
    assert len(manifest) == 3
    assert "its name is not valid Unicode" in skipped[0].reason


def test_loops_of_links_and_links_to_nowhere_end(tmp_path):
    three(tmp_path / "yard")
    (tmp_path / "yard/again").symlink_to(tmp_path)
    (tmp_path / "yard/gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    manifest, skipped = build_manifest(tmp_path)
    assert len(manifest) == 3
    assert [entry.path for entry in skipped] == ["yard/gone.jpg"]
    assert "does not exist" in skipped[0].reason


def test_the_second_of_two_equal_files_is_left_out_and_told(tmp_path):
    three(tmp_path)
    (tmp_path / "1 (copy).jpg").write_bytes((tmp_path / "1.jpg").read_bytes())
    manifest, skipped = build_manifest(tmp_path)
    assert len(manifest) == 3
    assert "holds the same bytes as 1" in skipped[0].reason


def test_depth_that_is_missing_is_none_and_depth_that_was_lost_is_named(tmp_path):
    save_picture(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.ones((24, 32), np.float32))
    (tmp_path / "frames.csv").write_text("image,depth\na.png,a.npy\na.png,\n")
    manifest, skipped = build_manifest(tmp_path)
    assert "listed twice" in skipped[0].reason
    (row,) = manifest.rows()
    (tmp_path / "a.npy").unlink()
    with pytest.raises(DataError, match=r"a\.npy does not exist, but the manifest names it"):
        read_depth(row, tmp_path)
    assert "a.npy does not exist" in verify_files(manifest)[0].reason


def test_a_rebuild_reads_what_is_new_keeps_the_rest_and_drops_what_is_gone(tmp_path, monkeypatch):
    root = tmp_path / "data"
    for scene in ("a", "b", "c"):
        three(root / scene)
    path = build_manifest(root)[0].save(tmp_path / "m.parquet")
    first = load_manifest(path)
    save_picture(root / "d/0.jpg")
    save_picture(root / "b/9.jpg", seed=9)
    for photo in (root / "c").iterdir():
        photo.unlink()
    built = build(root, BuildOptions(), previous=first)
    assert (built.read, built.kept, built.dropped) == (2, 1, 1)
    assert built.manifest.scenes() == ("a", "b", "d")
    assert len(built.manifest.frames("b")) == 4
    assert list(built.manifest.rows()) == list(build_manifest(root)[0].rows())
    again = build(root, BuildOptions(), previous=load_manifest(built.manifest.save(path)))
    assert (again.read, again.kept, again.dropped) == (0, 3, 0)
    assert path.read_bytes() == again.manifest.save(tmp_path / "n.parquet").read_bytes()
    other = build(root, BuildOptions(test_fraction=0.5), previous=built.manifest)
    assert (other.read, other.kept) == (3, 0)


def test_parts_are_read_by_several_processes_in_the_same_order(tmp_path, monkeypatch):
    for scene in range(6):
        three(tmp_path / f"s{scene}")
    (tmp_path / "s3/1.jpg").write_bytes(b"")
    monkeypatch.setattr("distill3d.data.manifest._ALONE_SECONDS", 0.0)
    alone, shared = build(tmp_path), build(tmp_path, workers=2)
    assert list(alone.manifest.rows()) == list(shared.manifest.rows())
    assert alone.skipped == shared.skipped
    assert len(shared.skipped) == 1


def test_one_damaged_scene_among_many_is_skipped_and_told(tmp_path, caplog):
    caplog.set_level(logging.INFO, "distill3d")
    from distill3d.data.datasets.annotated import write_annotated_scene

    torch = pytest.importorskip("torch")
    for name in "ab":
        write_annotated_scene(tmp_path / name, torch.rand(2, 3, 8, 8))
    (tmp_path / "a/scene.json").write_text("{")
    manifest, skipped = build_manifest(tmp_path)
    assert manifest.scenes() == ("b",)
    assert [entry.path for entry in skipped] == ["a"]
    assert "not valid JSON" in skipped[0].reason


def test_a_photo_in_a_stream_of_bytes_is_checked_for_its_length(tmp_path):
    from distill3d.data.refs import Span

    data = io.BytesIO()
    Image.fromarray(picture(24, 32)).save(data, "PNG")
    path = tmp_path / "a.tar"
    path.write_bytes(b"h" * 512 + data.getvalue())
    assert np.array_equal(read_photo(Span(path, 512, len(data.getvalue()))), picture(24, 32))
    with pytest.raises(DataError, match=r"byte 512.*ends 10 bytes before"):
        read_photo(Span(path, 512, len(data.getvalue()) + 10))


def test_photos_are_ordered_by_the_time_they_were_taken_if_that_is_asked_for(tmp_path):
    for name, second, part in (("a", 7, ""), ("b", 5, "75"), ("c", 5, "5"), ("d", None, "")):
        exif = Image.Exif()
        if second is not None:
            exif.get_ifd(0x8769).update({0x9003: f"2026:11:26 01:02:0{second}", 0x9291: part})
        save_picture(tmp_path / f"{name}.jpg", seed=ord(name), exif=exif)
    assert [row.image.path[0] for row in build_manifest(tmp_path)[0].rows()] == ["a", "b", "c", "d"]
    rows = list(build_manifest(tmp_path, by_time=True)[0].rows())
    assert [row.image.path[0] for row in rows] == ["c", "b", "a", "d"]
    assert np.diff([row.timestamp for row in rows[:3]]) == pytest.approx([0.25, 1.25])
    assert rows[3].timestamp is None
