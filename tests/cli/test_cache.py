"""`distill3d cache show|check|merge|convert` on a small cache, as people would use them."""

import shutil

import pytest

from distill3d.cache import CacheReader
from tests.cache.samples import write
from tests.cli.calls import call, succeed


@pytest.fixture
def cache(tmp_path):
    write(tmp_path / "c", range(3), codec="compact")
    return tmp_path / "c"


def test_show_tells_the_numbers_and_draws_a_page(cache, tmp_path):
    found = succeed("cache", "show", cache, "--page", tmp_path / "p.html")
    assert (found["samples"], found["views"], found["codec"]) == (3, 9, "compact")
    assert found["header"]["licence"] == "CC0-1.0"
    text = (tmp_path / "p.html").read_text()
    assert "Teacher cache of test-teacher" in text
    assert "scene/2, view 1" in text
    assert text.count("data:image/jpeg") >= 9  # a photo of every view
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_a_page_of_a_damaged_or_empty_cache_says_so(cache, tmp_path):
    entry = CacheReader(cache).entry("scene/1")
    data = bytearray((cache / "shard-00000.tar").read_bytes())
    data[entry.label_offset[0] + 20] ^= 1
    (cache / "shard-00000.tar").write_bytes(data)
    assert call("cache", "show", cache, "--page", tmp_path / "p.html").code == 0
    text = (tmp_path / "p.html").read_text()
    assert "Damaged" in text
    assert "checksum" in text
    write(tmp_path / "empty", [])
    assert call("cache", "show", tmp_path / "empty", "--page", tmp_path / "e.html").code == 0
    assert "0 samples" in (tmp_path / "e.html").read_text()


def test_check_names_the_damage_and_repair_leaves_it_out(cache):
    assert "3 samples, 9 views, none damaged" in call("cache", "check", cache).out
    entry = CacheReader(cache).entry("scene/1")
    data = bytearray((cache / "shard-00000.tar").read_bytes())
    data[entry.image_offset[0] + 40] ^= 1
    (cache / "shard-00000.tar").write_bytes(data)
    called = call("cache", "check", cache)
    assert called.code == 2
    assert "1 blobs of 1 samples are damaged" in called.err
    assert "scene/1, image of view 0" in called.err
    found = succeed("cache", "check", cache, "--repair")
    assert (found["found"], len(found["lost"]), found["samples"]) == (2, 1, 2)
    called = call("cache", "check", "s3://bucket/cache", "--repair")
    assert (called.code, "repair it where it lies" in called.err) == (2, True)


def test_merge_joins_parts_and_refuses_what_it_is_no_cache(cache, tmp_path):
    write(tmp_path / "d", range(3, 5), codec="compact")
    assert succeed("cache", "merge", cache, tmp_path / "d", "--out", tmp_path / "m")["num_samples"] == 5
    write(tmp_path / "whole", range(5), codec="compact")
    for name in ("cache.json", "index.parquet", "shard-00000.tar"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    called = call("cache", "merge", cache, tmp_path, "--out", tmp_path / "n")
    assert (called.code, "is not a teacher cache" in called.err) == (2, True)


def test_convert_goes_out_and_comes_in(cache, tmp_path):
    assert succeed("cache", "convert", cache, "--out", tmp_path / "npz")["samples"] == 3
    shutil.rmtree(tmp_path / "npz" / "images" / sorted(p.name for p in (tmp_path / "npz" / "images").iterdir())[0])
    found = succeed("cache", "convert", tmp_path / "npz", "--out", tmp_path / "again", "--teacher", "fast3r")
    assert (found["samples"], found["failed"]) == (2, 1)
    assert "image" in found["failures"][0]
    assert CacheReader(tmp_path / "again").header.teacher == "fast3r"
    (tmp_path / "nothing").mkdir()
    called = call("cache", "convert", tmp_path / "nothing", "--out", tmp_path / "x")
    assert (called.code, "has no consolidated.npz" in called.err) == (2, True)
    assert not (tmp_path / "x").exists()
