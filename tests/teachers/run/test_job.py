import dataclasses
import shutil

import pytest
import torch

from distill3d import models, teachers
from distill3d.cache import CacheReader, CacheWriter
from distill3d.data.fit import ImageFit
from distill3d.data.groups import load_group
from distill3d.data.manifest import build_manifest
from distill3d.data.policies import PolicyOptions, choose_groups
from distill3d.data.sampling import ViewGroup, contiguous
from distill3d.errors import CacheError, ConfigError, DataError
from distill3d.teachers.mask import ConfidenceMask
from distill3d.teachers.run import run_teacher
from distill3d.teachers.zoo import NetworkTeacher
from distill3d.types import Prediction
from tests.teachers.run.fake import FIT, Fake, contents
from tests.teachers.views import wall_views


def test_every_group_is_asked_once_and_kept_beside_its_photos(tmp_path, manifest):
    groups = contiguous(manifest, 3)
    done = run_teacher(Fake(), manifest, groups, tmp_path / "c", fit=FIT, settings={"policy": "contiguous"}, seed=5)
    reader = CacheReader(tmp_path / "c")
    assert set(reader.keys()) == {group.key for group in groups}
    for group in groups:
        views, sample = load_group(manifest, group, FIT), reader.load(group.key)
        assert torch.equal(sample.views.images, views.images)
        assert torch.equal(sample.prediction.depth, (1 + views.images.mean(dim=2)).half().float())
        assert sample.info == {"scene": group.scene, "frames": list(group.frames)}
        assert torch.equal(sample.views.world_from_camera, views.world_from_camera)
    assert done.num_written == len(groups) == done.num_groups
    assert done.num_views == 3 * len(groups)
    assert done.summary()["bytes"] == reader.describe()["bytes"]
    assert reader.header.teacher == "fake"
    assert reader.header.seed == 5
    assert reader.header.image_fit == {"long_side": 28, "multiple": 14, "mode": "pad"}
    assert reader.header.settings["policy"] == "contiguous"
    assert reader.header.settings["data_licences"] == ["CC0-1.0"]


def test_a_second_run_asks_nothing_and_changes_nothing(tmp_path, manifest):
    groups = contiguous(manifest, 3)
    run_teacher(Fake(), manifest, groups, tmp_path / "c", fit=FIT)
    before = contents(tmp_path / "c")
    teacher = Fake()
    done = run_teacher(teacher, manifest, groups, tmp_path / "c", fit=FIT, resume=True)
    assert teacher.calls == []
    assert (done.num_existing, done.num_written) == (len(groups), 0)
    assert contents(tmp_path / "c") == before


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path, manifest, batch_size):
    groups = contiguous(manifest, 2)
    options = {"fit": FIT, "batch_size": batch_size}
    run_teacher(Fake(), manifest, groups, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        run_teacher(Fake(stop_after=2), manifest, groups, tmp_path / "c", **options)
    reader = CacheReader(tmp_path / "c")
    assert len(reader) == min(2 * batch_size, len(groups))
    assert not (tmp_path / "c" / "journal.jsonl").exists()
    with pytest.raises(CacheError, match="already holds a cache"):
        run_teacher(Fake(), manifest, groups, tmp_path / "c", **options)
    done = run_teacher(Fake(), manifest, groups, tmp_path / "c", resume=True, **options)
    assert done.num_existing + done.num_written == len(groups)
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


def test_groups_of_equal_size_share_a_pass_and_others_do_not(tmp_path, manifest):
    scene = manifest.scenes()[0]
    frames = manifest.frames(scene)
    groups = [
        ViewGroup(scene, frames[start : start + size]) for start, size in ((0, 2), (1, 2), (2, 2), (0, 3), (1, 3))
    ]
    teacher = Fake()
    run_teacher(teacher, manifest, [*groups, groups[0]], tmp_path / "c", fit=FIT, batch_size=2)
    assert teacher.calls == [2, 1, 2]
    assert len(CacheReader(tmp_path / "c")) == 5


def test_labels_that_are_not_finite_are_counted_and_left_out(tmp_path, manifest):
    groups = contiguous(manifest, 3)
    marked = load_group(manifest, groups[1], FIT).images[0, 0, 0, 7, 14].item()
    done = run_teacher(Fake(break_at=marked), manifest, groups, tmp_path / "c", fit=FIT)
    failed = dict(done.failures)
    assert groups[1].key in failed
    assert "depth is not finite at" in failed[groups[1].key]
    reader = CacheReader(tmp_path / "c")
    assert len(reader) == len(groups) - len(failed)
    assert {item["key"] for item in reader.failures()} == set(failed)
    # Mended, the same run fills the gap.
    run_teacher(Fake(), manifest, groups, tmp_path / "c", fit=FIT, resume=True)
    assert len(CacheReader(tmp_path / "c")) == len(groups)
    assert CacheReader(tmp_path / "c").failures() == []


def test_an_unreadable_photo_costs_its_groups_alone(tmp_path, scenes):
    root = tmp_path / "scenes"
    shutil.copytree(scenes[0], root)
    manifest = build_manifest(root)[0]
    groups = contiguous(manifest, 2)
    row = manifest.row(groups[0].scene, groups[0].frames[0])
    (root / row.image.path).write_bytes(b"not a picture")
    done = run_teacher(Fake(), manifest, groups, tmp_path / "c", fit=FIT, batch_size=2)
    assert [key for key, _ in done.failures] == [groups[0].key]
    assert row.image.path.split("/")[-1] in done.failures[0][1]
    assert done.num_written == len(groups) - 1


def test_when_nothing_can_be_made_the_reason_is_told(tmp_path, manifest):
    groups = contiguous(manifest, 2)
    teacher = teachers.load("ground-truth")

    class Blind:
        name, licence, weights_hash, settings = teacher.name, teacher.licence, None, staticmethod(teacher.settings)

        @staticmethod
        def predict(views):
            return teacher.predict(dataclasses.replace(views, depth=None))

    for _ in range(2):  # an empty cache is nobody's: the second try needs no resume
        with pytest.raises(DataError, match=r"not one of \d+ view groups could be made.*lack depth"):
            run_teacher(Blind(), manifest, groups, tmp_path / "c", fit=FIT)
    with pytest.raises(DataError, match="no view groups"):
        run_teacher(teacher, manifest, [], tmp_path / "d", fit=FIT)


def test_another_teacher_may_not_add_to_the_cache(tmp_path, manifest):
    groups = contiguous(manifest, 3)
    run_teacher(Fake(), manifest, groups[:1], tmp_path / "c", fit=FIT)
    with pytest.raises(CacheError, match=r"teacher: the cache has 'fake', this run 'ground-truth'"):
        run_teacher(teachers.load("ground-truth"), manifest, groups, tmp_path / "c", fit=FIT, resume=True)
    with pytest.raises(CacheError, match=r"image_fit\.long_side: the cache has 28, this run 42"):
        run_teacher(Fake(), manifest, groups, tmp_path / "c", fit=ImageFit(long_side=42), resume=True)


def test_the_ground_truth_of_a_folder_becomes_a_cache_of_exact_points(tmp_path, manifest):
    groups = contiguous(manifest, 3)
    run_teacher(teachers.load("ground-truth"), manifest, groups, tmp_path / "c", fit=FIT)
    reader = CacheReader(tmp_path / "c")
    assert reader.verify() == []
    assert reader.describe()["world_maps_as_similarity"] == reader.describe()["views"]
    sample = reader.load(groups[0].key)
    exact = teachers.load("ground-truth").predict(load_group(manifest, groups[0], FIT))
    assert torch.equal(sample.valid, exact.valid)
    assert torch.allclose(sample.prediction.pointmap_world, exact.pointmap_world, atol=0.01)
    assert torch.equal(sample.prediction.world_from_camera, exact.world_from_camera)


@pytest.mark.parametrize("percentile", [0, 10, 50])
def test_a_percentile_leaves_out_that_share(percentile):
    views = wall_views()
    confidence = 1 + torch.rand(1, 3, 14, 28, generator=torch.Generator().manual_seed(0))
    found = ConfidenceMask(percentile=percentile).apply(views, Prediction(confidence_world=confidence))
    kept = views.valid if found.valid is None else found.valid
    assert abs(kept.float().mean() - (1 - percentile / 100)) < 0.01
    assert confidence[kept].min() >= confidence[~kept].max() if percentile else True


def test_a_percentile_looks_at_usable_pixels_only():
    views = wall_views()
    views.valid[..., :14] = False
    confidence = torch.where(views.valid, 2 + torch.rand(1, 3, 14, 28), 1.0)
    found = ConfidenceMask(percentile=50).apply(views, Prediction(confidence_camera=confidence))
    assert not found.valid[..., :14].any()
    assert abs(found.valid[..., 14:].float().mean() - 0.5) < 0.01


def test_a_threshold_is_absolute_and_must_do_something():
    views = wall_views()
    confidence = 1 + views.images[:, :, 0]
    found = ConfidenceMask(threshold=1.5).apply(views, Prediction(confidence_depth=confidence))
    assert torch.equal(found.valid, confidence >= 1.5)
    with pytest.raises(ConfigError, match=r"threshold is 0\.3.*keeps every pixel"):
        ConfidenceMask(threshold=0.3)
    with pytest.raises(ConfigError, match="expected 0"):
        ConfidenceMask(percentile=100)
    with pytest.raises(ConfigError, match="not by both"):
        ConfidenceMask(percentile=5, threshold=2)
    with pytest.raises(ConfigError, match="no confidence"):
        ConfidenceMask(percentile=5).apply(views, Prediction(depth=confidence))


def test_the_mask_reaches_the_cache_and_its_header(tmp_path, manifest):
    groups = contiguous(manifest, 3)
    run_teacher(Fake(), manifest, groups, tmp_path / "c", fit=FIT, mask=ConfidenceMask(percentile=40))
    reader = CacheReader(tmp_path / "c")
    assert reader.header.settings["mask"] == {"percentile": 40, "threshold": None}
    for sample in reader:
        assert abs(sample.valid.float().mean() - 0.6) < 0.05
        assert sample.prediction.depth.isfinite().all()


def test_a_monocular_teacher_labels_every_frame_alone(tmp_path, manifest):
    class Monocular(Fake):
        def predict(self, views):
            depth = super().predict(views).depth
            normal = torch.tensor([0.0, 0.6, -0.8]).expand(*depth.shape, 3)
            return Prediction(depth=depth, normal=normal, metric_scale=torch.full(depth.shape[:2], 2.0))

    groups = choose_groups(manifest, "single", 8, PolicyOptions(split="train"))
    assert len(groups) == len(manifest)
    run_teacher(Monocular(), manifest, groups, tmp_path / "c", fit=FIT, codec="compact", batch_size=4)
    reader = CacheReader(tmp_path / "c")
    assert len(reader) == len(manifest)
    for sample in reader:
        assert sample.views.images.shape[1] == 1
        assert sample.prediction.pointmap_world is None
        expected = 1 + sample.views.images.mean(dim=2)
        assert torch.allclose(sample.prediction.depth, expected, rtol=2**-11)
        assert (sample.prediction.normal[..., 2] + 0.8).abs().max() < 0.01
    with pytest.raises(DataError, match="no frames in the split 'holiday'"):
        choose_groups(manifest, "single", 1, PolicyOptions(split="holiday"))


def test_a_full_cache_folder_stays_locked_while_it_is_written(tmp_path, manifest):
    with CacheWriter(tmp_path / "c"), pytest.raises(CacheError, match="another run is writing"):
        run_teacher(Fake(), manifest, contiguous(manifest, 2), tmp_path / "c", fit=FIT, resume=True)


def test_real_photos_go_through_a_network_into_a_cache(tmp_path, shared_data):
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((shared_data / "buddha" / "images").glob("*.jpg"))[:5]:
        shutil.copy(path, photos)
    manifest = build_manifest(photos)[0]
    groups = contiguous(manifest, 2)
    broken = photos / manifest.row(groups[-1].scene, groups[-1].frames[-1]).image.path
    broken.write_bytes(broken.read_bytes()[:2000])
    spec = models.get("distill3r")
    teacher = NetworkTeacher(spec.build(spec.variant("tiny")), name="tiny")
    done = run_teacher(teacher, manifest, groups, tmp_path / "c", fit=ImageFit(long_side=112), batch_size=2)
    assert done.num_written == len(groups) - 1
    assert broken.name in done.failures[0][1]
    reader = CacheReader(tmp_path / "c")
    assert reader.verify() == []
    sample = reader.load(groups[0].key)
    assert sample.views.images.shape == (1, 2, 3, 70, 112)
    assert sample.similarity is not None
    assert not sample.valid[0, 0, 0].any()  # padding above a photo of 63 rows
    assert sample.valid[0, 0, 35].all()
    assert 0.2 < sample.views.images[0, 0, :, 35].mean() < 0.8
