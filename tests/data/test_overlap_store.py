import os
from contextlib import closing

import numpy as np
import pytest

from distill3d.data import overlap_store
from distill3d.data.manifest import build_manifest
from distill3d.data.overlap import scene_overlap
from distill3d.data.overlap_store import OverlapStore
from distill3d.data.policies import PolicyOptions, choose_groups
from tests.data.pictures import save_picture


@pytest.fixture
def photos(tmp_path):
    for number in range(5):
        save_picture(tmp_path / "yard" / f"{number}.png", seed=number)
    return tmp_path / "yard"


@pytest.fixture
def computed(monkeypatch):
    """The scenes whose overlap was computed."""
    scenes = []

    def counting(manifest, scene, frames):
        scenes.append(scene)
        return scene_overlap(manifest, scene, frames)

    monkeypatch.setattr(overlap_store, "scene_overlap", counting)
    return scenes


@pytest.mark.parametrize("policy", ["covisible", "adaptive"])
def test_the_same_groups_come_without_decoding_anything_again(photos, computed, tmp_path, policy):
    manifest, _ = build_manifest(photos)
    plain = choose_groups(manifest, policy, 3, PolicyOptions(count=4))
    options = PolicyOptions(count=4, overlaps=tmp_path / "kept.sqlite")
    computed.clear()
    assert choose_groups(manifest, policy, 3, options) == plain
    assert computed
    computed.clear()
    assert choose_groups(manifest, policy, 3, options) == plain
    assert not computed


def test_a_file_that_has_changed_is_looked_at_again(photos, computed, tmp_path):
    manifest, _ = build_manifest(photos)
    frames = manifest.frames("yard")
    with closing(OverlapStore(tmp_path / "kept.sqlite")) as store:
        before = store.between(manifest, "yard", frames)
        save_picture(photos / "2.png", seed=77)
        os.utime(photos / "2.png", ns=(1, 1))
        after = store.between(manifest, "yard", frames)
        assert len(computed) == 2
        assert not np.array_equal(before, after)
        assert np.array_equal(after, scene_overlap(manifest, "yard", frames))
        assert np.array_equal(store.between(manifest, "yard", frames), after)
        assert len(computed) == 2


def test_a_store_that_cannot_be_used_changes_nothing(photos, tmp_path, caplog):
    manifest, _ = build_manifest(photos)
    frames = manifest.frames("yard")
    (tmp_path / "broken.sqlite").write_bytes(b"no database " * 500)
    for path in (tmp_path / "broken.sqlite", tmp_path / "nowhere/kept.sqlite"):
        caplog.clear()
        with closing(OverlapStore(path)) as store:
            assert np.array_equal(store.between(manifest, "yard", frames), scene_overlap(manifest, "yard", frames))
        assert "computed anew each time" in caplog.text
    assert (tmp_path / "broken.sqlite").read_bytes() == b"no database " * 500
