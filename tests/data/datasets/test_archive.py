"""Photos in zips and tars, read where they lie."""

import tarfile
import zipfile

import numpy as np
import pytest

from distill3d.data.datasets import ScanOptions
from distill3d.data.frames import read_picture
from distill3d.data.manifest import build_manifest, load_manifest
from distill3d.data.sources import find_source
from distill3d.errors import DataError
from tests.data.pictures import save_picture

NAMES = ("flat/images/10.png", "flat/images/2.png", "yard/1.png", "top.png")


@pytest.fixture
def files(tmp_path):
    found = {name: save_picture(tmp_path / "files" / name, seed=place) for place, name in enumerate(NAMES)}
    for name in ("__MACOSX/flat/._2.png", ".thumbs/2.png", "notes.txt", "yard/walk.mp4"):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        found[name] = path
    return found


def pack(kind, files, path):
    if kind == "tar":
        with tarfile.open(path, "w") as tar:
            for name, file in files.items():
                tar.add(file, f"./{name}")
    else:
        how = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}[kind]
        with zipfile.ZipFile(path, "w", how) as archive:
            for name, file in files.items():
                archive.write(file, name)
    return path


@pytest.mark.parametrize("kind", ["tar", "stored", "deflated"])
def test_photos_in_an_archive_are_those_that_were_packed(files, tmp_path, kind):
    path = pack(kind, files, tmp_path / f"trip.{'tar' if kind == 'tar' else 'zip'}")
    assert find_source(path).describe() == f"1 archive in {path}"
    manifest, skipped = build_manifest(path)
    assert manifest.scenes() == ("flat", "trip", "yard")
    assert [entry.path for entry in skipped] == [f"{path.name}:yard/walk.mp4"]
    assert manifest.summary()["from_video"] == 0
    loaded = load_manifest(manifest.save(tmp_path / "m.parquet"))
    packed = {"flat": ("flat/images/2.png", "flat/images/10.png"), "trip": ("top.png",), "yard": ("yard/1.png",)}
    for scene, names in packed.items():
        for row, name in zip(loaded.rows(scene), names, strict=True):
            alone = next(iter(build_manifest(files[name])[0].rows()))
            assert np.array_equal(read_picture(row, loaded.root), read_picture(alone, files[name].parent))


def test_what_is_packed_in_another_way_is_left_out_in_words(files, tmp_path):
    path = tmp_path / "trip.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(files["top.png"], "1.png", zipfile.ZIP_LZMA)
        archive.write(files["top.png"], "2.png", zipfile.ZIP_STORED)
    skipped = []
    rows = list(find_source(path).scan(ScanOptions(), on_skip=skipped.append))
    assert [row.frame for row in rows] == [1]
    assert "Unpack it" in skipped[0].reason


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_a_damaged_archive_is_told_and_nothing_else_happens(files, tmp_path, suffix):
    path = pack("tar" if suffix == "tar" else "deflated", files, tmp_path / f"trip.{suffix}")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 20):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged[: rng.integers(1, len(whole) + 1)]))
        try:
            manifest, _ = build_manifest(path)
            for row in manifest.rows():
                read_picture(row, manifest.root)
        except DataError:
            continue


def test_an_archive_without_photos_says_what_is_the_matter(tmp_path):
    with zipfile.ZipFile(tmp_path / "papers.zip", "w") as archive:
        archive.writestr("a.pdf", "x")
    with pytest.raises(DataError, match="holds no photos, only 1 other file"):
        find_source(tmp_path / "papers.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "papers.zip").read_bytes()[:40])
    with pytest.raises(DataError, match="damaged or no archive"):
        find_source(tmp_path / "cut.zip")
