import pytest
import torch

from distill3d.data.groups import load_group
from distill3d.data.images import ImageFit
from distill3d.data.join import join_manifests
from distill3d.data.manifest import build_manifest
from distill3d.data.sampling import ViewGroup
from distill3d.errors import DataError
from tests.data.pictures import save_picture


@pytest.fixture
def manifests(tmp_path):
    for place, seed in (("a/kitchen", 1), ("a/hall", 2), ("b/deep/kitchen", 3)):
        for number in range(2):
            save_picture(tmp_path / place / f"{number}.jpg", seed=10 * seed + number)
    return {"flat": build_manifest(tmp_path / "a")[0], "house": build_manifest(tmp_path / "b/deep")[0]}


def test_joined_manifests_lead_to_the_same_pictures_under_names_of_their_own(manifests):
    joined = join_manifests(manifests)
    assert joined.scenes() == ("flat/hall", "flat/kitchen", "house/kitchen")
    fit = ImageFit(long_side=56, multiple=14)
    for name, manifest in manifests.items():
        for scene in manifest.scenes():
            alone = load_group(manifest, ViewGroup(scene, manifest.frames(scene)), fit)
            both = load_group(joined, ViewGroup(f"{name}/{scene}", manifest.frames(scene)), fit)
            assert torch.equal(alone.images, both.images)


def test_one_manifest_stays_as_it_is_and_none_is_refused(manifests):
    assert join_manifests({"flat": manifests["flat"]}) is manifests["flat"]
    with pytest.raises(DataError, match="no manifest"):
        join_manifests({})


def test_a_joined_manifest_can_be_saved_and_read(manifests, tmp_path):
    from distill3d.data.table import load_manifest

    joined = join_manifests(manifests)
    assert list(load_manifest(joined.save(tmp_path / "all.parquet")).rows()) == list(joined.rows())
