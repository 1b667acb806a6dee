import dataclasses
import errno
import json
import os
import tarfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.cache import CacheReader, CacheWriter
from distill3d.cache.commit import CommitLog
from distill3d.errors import CacheError, OutputError
from distill3d.types import Prediction, Views

from .samples import HEADER, assert_equal_records, make_sample, write


def half(value: torch.Tensor) -> torch.Tensor:
    return value.half().float()


def expected_prediction(prediction: Prediction) -> Prediction:
    """What the exact codec promises, but for the world map."""
    maps = ("pointmap_camera", "confidence_world", "confidence_camera")
    return dataclasses.replace(prediction, **{name: half(getattr(prediction, name)) for name in maps})


@given(views=st.integers(1, 5), height=st.integers(1, 17), width=st.integers(3, 17), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_sample_of_any_size_comes_back(tmp_path_factory, views, height, width, seed):
    sample, prediction = make_sample(seed, views=views, height=height, width=width)
    folder = tmp_path_factory.mktemp("cache") / "c"
    with CacheWriter(folder) as writer:
        writer.add("a", sample, prediction)
    found = CacheReader(folder).load("a")
    assert_equal_records(found.views, sample)
    world = found.prediction.pointmap_world
    assert torch.allclose(world, prediction.pointmap_world, rtol=0, atol=2.0**-11 * 30)
    assert_equal_records(
        dataclasses.replace(found.prediction, pointmap_world=None),
        dataclasses.replace(expected_prediction(prediction), pointmap_world=None),
    )
    assert torch.equal(found.valid, sample.valid & prediction.valid)


def test_the_similarity_takes_the_local_map_to_the_world_map_and_gives_the_poses(tmp_path):
    sample, prediction = make_sample(0)
    with CacheWriter(tmp_path / "c") as writer:
        writer.add("a", sample, dataclasses.replace(prediction, world_from_camera=None))
    found = CacheReader(tmp_path / "c").load("a")
    local = found.prediction.pointmap_camera.double().flatten(2, 3)
    assert torch.allclose(
        found.similarity.apply(local).float(), found.prediction.pointmap_world.flatten(2, 3), atol=1e-5
    )
    assert torch.allclose(found.similarity.scale, torch.tensor(1.7, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(found.prediction.world_from_camera, prediction.world_from_camera, atol=1e-5)


def test_a_world_map_of_its_own_leaves_no_similarity(tmp_path):
    sample, prediction = make_sample(0)
    world = prediction.pointmap_world.clone()
    world[0, 1, 2, 2] += 0.3
    with CacheWriter(tmp_path / "c") as writer:
        writer.add("a", sample, dataclasses.replace(prediction, pointmap_world=world))
    reader = CacheReader(tmp_path / "c")
    assert reader.load("a").similarity is None
    assert torch.equal(reader.load("a").prediction.pointmap_world[:, 1], half(world[:, 1]))
    # The decision is taken view by view, and recorded.
    assert reader.load("a", views=[0, 2]).similarity is not None
    assert reader.describe()["world_maps_as_similarity"] == 2


def test_pixels_that_are_not_finite_are_not_valid(tmp_path):
    sample, prediction = make_sample(0)
    confidence = prediction.confidence_world.clone()
    confidence[0, 0, 1, 1] = float("nan")
    prediction = dataclasses.replace(prediction, confidence_world=confidence, valid=None)
    with CacheWriter(tmp_path / "c") as writer:
        writer.add("a", dataclasses.replace(sample, valid=None), prediction)
    valid = CacheReader(tmp_path / "c").load("a").valid
    assert not valid[0, 0, 1, 1]
    assert int((~valid).sum()) == 1


def test_images_between_two_levels_are_rounded(tmp_path):
    sample, prediction = make_sample(0)
    with CacheWriter(tmp_path / "c") as writer:
        writer.add("a", dataclasses.replace(sample, images=(sample.images + 0.4 / 255).clamp(max=1)), prediction)
    assert torch.equal(CacheReader(tmp_path / "c").load("a").views.images, sample.images)


def test_a_shard_is_a_tar_that_any_tool_reads(tmp_path):
    write(tmp_path / "c", range(2))
    with tarfile.open(tmp_path / "c" / "shard-00000.tar") as archive:
        members = archive.getmembers()
        assert len(members) == 2 * (2 * 3 + 1)
        assert members[1].name.endswith("view-000.png")
        summary = json.loads(archive.extractfile(members[6]).read())
    assert summary["key"] == "scene/0"
    assert summary["info"] == {"frames": [0, 1]}
    assert len(summary["label_crc"]) == 3
    assert all(member.name.startswith("scene-") for member in members)


def test_shards_follow_each_other_and_read_as_one(tmp_path):
    header = dataclasses.replace(HEADER, shard_bytes=20_000)
    with CacheWriter(tmp_path / "c", header=header) as writer:
        for seed in range(6):
            writer.add(str(seed), *make_sample(seed))
    names = sorted(path.name for path in (tmp_path / "c").glob("shard-*.tar"))
    assert len(names) >= 2
    for name in names:
        with tarfile.open(tmp_path / "c" / name) as archive:
            assert archive.getmembers()
    reader = CacheReader(tmp_path / "c")
    assert reader.verify() == []
    for seed in range(6):
        assert_equal_records(reader.load(str(seed)).views, make_sample(seed)[0])


def test_equal_runs_write_equal_bytes(tmp_path):
    write(tmp_path / "a", range(3))
    write(tmp_path / "b", range(3))
    for name in ("cache.json", "index.parquet", "shard-00000.tar"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_resumed_cache_equals_an_uninterrupted_one(tmp_path):
    write(tmp_path / "a", range(5))
    write(tmp_path / "b", range(2))
    write(tmp_path / "b", range(2, 4), resume=True)
    write(tmp_path / "b", range(4, 5), resume=True)
    for name in ("cache.json", "index.parquet", "shard-00000.tar"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_open_cache_shows_what_is_committed(tmp_path):
    with CacheWriter(tmp_path / "c", header=HEADER) as writer:
        assert len(CacheReader(tmp_path / "c")) == 0
        writer.add("a", *make_sample(0))
        assert writer.has("a")
        assert not writer.has("b")
        reader = CacheReader(tmp_path / "c")
        assert reader.keys() == ("a",)
        assert_equal_records(reader.load("a").views, make_sample(0)[0])
    assert reader.load("a").key == "a"  # opened before the writer closed


def test_with_sync_every_samples_appear_in_groups(tmp_path):
    with CacheWriter(tmp_path / "c", sync_every=3) as writer:
        for seed in range(4):
            writer.add(str(seed), *make_sample(seed))
        assert len(CacheReader(tmp_path / "c")) == 3
    assert len(CacheReader(tmp_path / "c")) == 4
    assert CacheReader(tmp_path / "c").verify() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": "other"}, r"teacher: the cache has 'test-teacher', this run 'other'"),
        ({"weights_hash": "def"}, "weights_hash"),
        ({"image_fit": {**HEADER.image_fit, "long_side": 56}}, "image_fit.long_side: the cache has 28, this run 56"),
        ({"codec": "exact", "codec_settings": {"world": "stored"}}, r"codec_settings.world: the cache has 'auto'"),
        ({"seed": 4}, "seed"),
        ({"settings": {"stride": 2}}, "settings"),
    ],
)  # fmt: skip
def test_resuming_with_other_settings_names_them(tmp_path, change, words):
    write(tmp_path / "c", range(1))
    with pytest.raises(CacheError, match=words):
        CacheWriter(tmp_path / "c", header=dataclasses.replace(HEADER, **change), resume=True)
    write(tmp_path / "c", range(1, 2), resume=True)  # and the refusal left the cache free


def test_a_cache_is_not_overwritten(tmp_path):
    write(tmp_path / "c", range(1))
    with pytest.raises(CacheError, match=r"already holds a cache\. Resume it"):
        CacheWriter(tmp_path / "c", header=HEADER)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds other files \(thesis.tex"):
        CacheWriter(tmp_path / "d", resume=True)
    with pytest.raises(OutputError):
        CacheWriter(tmp_path / "d" / "thesis.tex" / "c")


def test_two_writers_never_meet(tmp_path):
    with CacheWriter(tmp_path / "c", header=HEADER) as writer:
        with pytest.raises(CacheError, match="another run is writing"):
            CacheWriter(tmp_path / "c", header=HEADER, resume=True)
        pid = os.fork()
        if pid == 0:  # another process
            from distill3d.cache.lock import WriterLock

            WriterLock._ours.clear()
            try:
                CacheWriter(tmp_path / "c", header=HEADER, resume=True)
            except CacheError as error:
                os._exit(42 if "another run is writing" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
        pid = os.fork()
        if pid == 0:  # a child that inherited the open writer
            try:
                writer.add("a", *make_sample(0))
            except CacheError as error:
                os._exit(43 if "belongs to another process" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 43
        writer.add("a", *make_sample(0))
    write(tmp_path / "c", [1], resume=True)


def test_a_key_is_added_once_and_a_sample_must_be_whole(tmp_path):
    sample, prediction = make_sample(0)
    with CacheWriter(tmp_path / "c") as writer:
        writer.add("a", sample, prediction)
        with pytest.raises(CacheError, match="already in"):
            writer.add("a", sample, prediction)
        with pytest.raises(CacheError, match="prediction is empty"):
            writer.add("b", sample, Prediction())
        with pytest.raises(CacheError, match=r"prediction.depth has shape"):
            writer.add("c", sample, Prediction(depth=torch.ones(1, 2, 6, 8)))
        with pytest.raises(CacheError, match="one at a time"):
            writer.add("d", Views(images=torch.rand(2, 1, 3, 4, 4)), Prediction(depth=torch.ones(2, 1, 4, 4)))
        writer.add("e", *make_sample(1))
    with pytest.raises(CacheError, match="closed"):
        writer.add("f", sample, prediction)
    reader = CacheReader(tmp_path / "c")
    assert reader.keys() == ("a", "e")
    with pytest.raises(CacheError, match="no sample 'zz'"):
        reader.load("zz")
    with pytest.raises(CacheError, match="views 0 to 2"):
        reader.load("a", views=[3])


def test_failures_are_listed_until_they_are_mended(tmp_path):
    with CacheWriter(tmp_path / "c") as writer:
        writer.skip("a", "the teacher returned NaN")
        writer.skip("b", "cannot read img.png")
        writer.skip("a", "the teacher returned NaN")
    assert [item["key"] for item in CacheReader(tmp_path / "c").failures()] == ["a", "b"]
    with (tmp_path / "c" / "failures.jsonl").open("ab") as file:
        file.write(b'{"key": "torn')
    with CacheWriter(tmp_path / "c", resume=True) as writer:
        writer.add("a", *make_sample(0))
        writer.skip("c", "late")
    reader = CacheReader(tmp_path / "c")
    assert [item["key"] for item in reader.failures()] == ["b", "c"]
    assert reader.describe()["failures"] == 2


@pytest.mark.parametrize("call", range(4))
def test_a_full_disk_is_an_output_error_and_spoils_nothing(tmp_path, monkeypatch, call):
    def write_some(file, data):
        nonlocal calls
        calls += 1
        if calls > call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[: len(data) // 2 + 1])

    real, calls = os.write, 0
    writer = CacheWriter(tmp_path / "c", header=HEADER)
    writer.add("0", *make_sample(0))
    monkeypatch.setattr(os, "write", write_some)
    with pytest.raises(OutputError, match=r"disk is full.*Everything committed is safe"):
        writer.add("1", *make_sample(1))
    with pytest.raises(CacheError, match="stopped by an earlier error"):
        writer.add("2", *make_sample(2))
    writer.close()
    monkeypatch.undo()
    reader = CacheReader(tmp_path / "c")
    assert reader.keys() == ("0",)
    assert reader.verify() == []
    with CacheWriter(tmp_path / "c", header=HEADER, resume=True) as writer:
        writer.add("1", *make_sample(1))
    assert CacheReader(tmp_path / "c").verify() == []


def test_an_interruption_ends_cleanly_with_what_is_committed(tmp_path, monkeypatch):
    write(tmp_path / "whole", range(1))

    def interrupted(self, entry, data):
        os.write(self._shard_file, data[: len(data) // 2])
        raise KeyboardInterrupt

    def run():
        with CacheWriter(tmp_path / "c", header=HEADER) as writer:
            writer.add("scene/0", *make_sample(0), info={"frames": [0, 1]})
            monkeypatch.setattr(CommitLog, "append", interrupted)
            writer.add("scene/1", *make_sample(1))

    with pytest.raises(KeyboardInterrupt):
        run()
    for name in ("index.parquet", "shard-00000.tar"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "c" / "journal.jsonl").exists()
