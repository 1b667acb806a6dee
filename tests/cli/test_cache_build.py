"""`distill3d cache build`: what its options come to."""

import json
import sys
from typing import get_args

import pytest

from distill3d.cache import CacheReader
from distill3d.cli.cache.build import Policy
from distill3d.data.policies import POLICIES
from tests.cli.calls import SIZE, build_cache, call, save_fresh_student


def test_the_policies_of_the_help_are_those_there_are():
    assert set(get_args(Policy)) == set(POLICIES)


def test_a_dry_run_says_what_it_would_take_and_leaves_nothing(chain, tmp_path):
    called = build_cache(chain.manifest, tmp_path / "c", "--dry-run")
    assert called.code == 0, called.err
    found = called.data
    assert list(tmp_path.iterdir()) == []
    assert (found["views"], found["groups"], found["dry_run"]) == (12, 4, True)
    assert found["gigabytes"] == pytest.approx(found["views"] * found["bytes_per_view"] / 1e9, abs=1e-4)
    assert found["hours"] == pytest.approx(found["views"] / found["views_per_second"] / 3600, abs=1e-3)
    size = CacheReader(chain.cache).describe()["bytes_per_view"]
    assert found["bytes_per_view"] == pytest.approx(size, rel=0.05)
    words = call("cache", "build", "--manifest", chain.manifest, "--out", tmp_path / "c", "--views", 3, "--dry-run")
    assert "Nothing was written." in words.out
    again = build_cache(chain.manifest, chain.cache, "--dry-run", "--resume")
    assert again.code == 2
    assert "all 4 view groups are in the cache already" in again.err


def test_labels_are_stored_as_asked(chain, tmp_path):
    compact = CacheReader(chain.cache).header
    assert compact.codec == "compact"
    assert compact.codec_settings["bound"] == 2**-11
    how = ("--bound", 0.01, "--images", "jpeg", "--jpeg-quality", 80)
    assert build_cache(chain.manifest, tmp_path / "c", *how).code == 0
    found = CacheReader(tmp_path / "c")
    assert found.header.codec_settings["bound"] == 0.01
    assert found.describe()["bytes"] < 0.7 * CacheReader(chain.cache).describe()["bytes"]
    assert build_cache(chain.manifest, tmp_path / "d", "--codec", "exact").code == 0
    assert CacheReader(tmp_path / "d").header.codec == "exact"
    wrong = build_cache(chain.manifest, tmp_path / "e", "--codec", "exact", "--bound", 0.01)
    assert wrong.code == 2
    assert "codec exact does not take {'bound': 0.01}" in wrong.err


def test_groups_may_come_from_a_file(chain, tmp_path):
    from distill3d.data.table import load_manifest

    (scene,) = load_manifest(chain.manifest).scenes()
    (tmp_path / "groups.jsonl").write_text(json.dumps({"scene": scene, "frames": [3, 0]}) + "\n")
    called = build_cache(
        chain.manifest, tmp_path / "c", "--policy", "explicit", "--groups-file", tmp_path / "groups.jsonl"
    )
    assert called.code == 0, called.err
    assert [sample.info["frames"] for sample in CacheReader(tmp_path / "c")] == [[3, 0]]


def test_what_cannot_be_is_said_in_words(chain, tmp_path, monkeypatch):
    options = {
        ("--teacher", "nobody"): "There is no teacher 'nobody'",
        ("--teacher", "fast3r"): "needs weights",
        ("--teacher", "colmap", "--project", tmp_path): "holds no COLMAP model",
        ("--project", tmp_path): "'ground-truth' does not take these options",
        ("--batch", 0): "batch_size is 0",
        ("--threads", 0): "threads is 0",
        ("--engine", "ray", "--ray-workers", 0): "ray_workers is 0",
    }
    for words, reason in options.items():
        called = build_cache(chain.manifest, tmp_path / "c", *words)
        assert called.code == 2, words
        assert reason in called.err
    monkeypatch.setitem(sys.modules, "ray", None)
    called = build_cache(chain.manifest, tmp_path / "c", "--engine", "ray")
    assert called.code == 2
    assert "pip install 'distill3d[ray]'" in called.err


def test_a_weights_file_is_a_teacher(chain, tmp_path):
    student = save_fresh_student(tmp_path / "student.safetensors")
    called = build_cache(chain.manifest, tmp_path / "c", "--teacher", student, "--batch", 2, "--threads", 1)
    assert called.code == 0, called.err
    assert called.data["written"] + called.data["failed"] == 4


def test_one_cache_of_several_manifests_names_scenes_after_their_files(chain, tmp_path):
    from distill3d.data.table import load_manifest

    manifest = load_manifest(chain.manifest)
    both = [manifest.save(tmp_path / f"{name}.parquet") for name in ("yard", "house")]
    how = ("--policy", "contiguous", "--views", 3, "--fit.long-side", SIZE)
    called = call("cache", "build", "--manifest", *both, "--out", tmp_path / "c", *how)
    assert called.code == 0, called.err
    keys = list(CacheReader(tmp_path / "c").keys())
    assert sum(key.startswith("yard-") for key in keys) == sum(key.startswith("house-") for key in keys) > 0
    assert len(keys) == len([key for key in keys if key.startswith(("yard-", "house-"))])
    (tmp_path / "other").mkdir()
    twin = manifest.save(tmp_path / "other" / "yard.parquet")
    wrong = call("cache", "build", "--manifest", both[0], twin, "--out", tmp_path / "d")
    assert wrong.code == 2
    assert "have the same name" in wrong.err
