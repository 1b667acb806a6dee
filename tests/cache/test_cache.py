import dataclasses
import errno
import json
import os
import pickle
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.cache import CacheHeader, CacheReader, CacheWriter
from distill3d.cache.commit import CommitLog
from distill3d.errors import CacheError, OutputError
from distill3d.types import Prediction, Views, select_views

from .samples import assert_equal_records, make_sample

HEADER = CacheHeader(
    teacher="test-teacher",
    weights_hash="abc",
    licence="CC0-1.0",
    image_fit={"long_side": 28, "multiple": 14, "mode": "pad"},
    seed=3,
)


def half(value: torch.Tensor) -> torch.Tensor:
    return value.half().float()


def expected_prediction(prediction: Prediction) -> Prediction:
    """What the exact codec promises, but for the world map."""
    maps = ("pointmap_camera", "confidence_world", "confidence_camera")
    return dataclasses.replace(prediction, **{name: half(getattr(prediction, name)) for name in maps})


def write(path, seeds, **options):
    with CacheWriter(path, header=HEADER, **options) as writer:
        for seed in seeds:
            writer.add(f"scene/{seed}", *make_sample(seed), info={"frames": [seed, seed + 1]})


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


def test_a_subset_of_views_is_the_same_as_those_views_of_the_whole(tmp_path):
    write(tmp_path / "c", range(3))
    reader = CacheReader(tmp_path / "c")
    whole, part = reader.load("scene/1"), reader.load("scene/1", views=[2, 0])
    assert_equal_records(part.views, select_views(whole.views, [2, 0]))
    assert_equal_records(part.prediction, select_views(whole.prediction, [2, 0]))
    assert torch.equal(part.valid, whole.valid[:, [2, 0]])
    assert torch.equal(part.similarity.rotation, whole.similarity.rotation[:, [2, 0]])
    assert part.info == {"frames": [1, 2]}
    assert reader.shape("scene/1") == (3, 6, 8)
    assert reader.info("scene/2") == {"frames": [2, 3]}


def test_only_the_blobs_of_the_views_asked_for_are_read(tmp_path, monkeypatch):
    write(tmp_path / "c", range(2))
    reader = CacheReader(tmp_path / "c")
    read: list[tuple[int, int]] = []
    pread = os.pread
    monkeypatch.setattr(
        os, "pread", lambda file, size, offset: read.append((offset, size)) or pread(file, size, offset)
    )
    reader.load("scene/0", views=[1])
    entry = reader._index.entry(0)
    assert sorted(read) == sorted(
        [(entry.label_offset[1], entry.label_size[1]), (entry.image_offset[1], entry.image_size[1])]
    )


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


def test_keys_are_sorted_whatever_the_order_they_came_in(tmp_path):
    write(tmp_path / "c", [5, 1, 3])
    reader = CacheReader(tmp_path / "c")
    assert reader.keys() == ("scene/1", "scene/3", "scene/5")
    assert len(reader) == 3
    assert reader[1].key == "scene/3"
    assert [sample.key for sample in reader] == list(reader.keys())


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


@pytest.mark.parametrize("blob", ["label", "image", "sample"])
def test_one_changed_byte_is_found(tmp_path, blob):
    write(tmp_path / "c", range(2))
    entry = CacheReader(tmp_path / "c")._index.entry(1)
    offset = entry.sample_offset if blob == "sample" else getattr(entry, f"{blob}_offset")[2]
    path = tmp_path / "c" / "shard-00000.tar"
    data = bytearray(path.read_bytes())
    data[offset + 20] ^= 1
    path.write_bytes(data)
    reader = CacheReader(tmp_path / "c")
    damaged = reader.verify()
    assert [item.key for item in damaged] == ["scene/1"]
    assert "checksum" in damaged[0].reason
    assert damaged[0].blob == ("sample.json" if blob == "sample" else f"{blob} of view 2")
    reader.load("scene/1", views=[0, 1])
    reader.load("scene/0")
    if blob != "sample":
        with pytest.raises(CacheError, match=r"scene/1, .* of view 2, shard-00000.tar: checksum"):
            reader.load("scene/1")


def test_a_lost_or_short_shard_is_told(tmp_path):
    write(tmp_path / "c", range(2))
    path = tmp_path / "c" / "shard-00000.tar"
    os.truncate(path, CacheReader(tmp_path / "c")._index.entry(1).label_offset[1] + 5)
    assert {item.key for item in CacheReader(tmp_path / "c").verify()} == {"scene/1"}
    with pytest.raises(CacheError, match="the shard ends after"):
        CacheReader(tmp_path / "c").load("scene/1")
    with pytest.raises(CacheError, match="was cut off"):
        CacheWriter(tmp_path / "c", header=HEADER, resume=True)
    path.unlink()
    with pytest.raises(CacheError, match="cannot open"):
        CacheReader(tmp_path / "c").load("scene/0")
    assert len(CacheReader(tmp_path / "c").verify()) == 2


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


def test_what_is_no_cache_or_newer_is_refused_with_words(tmp_path):
    with pytest.raises(CacheError, match="there is no such folder"):
        CacheReader(tmp_path / "nowhere")
    with pytest.raises(CacheError, match=r"it has no cache.json"):
        CacheReader(tmp_path)
    write(tmp_path / "c", range(1))
    path = tmp_path / "c" / "cache.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 7}))
    for opening in (CacheReader, lambda path: CacheWriter(path, header=HEADER, resume=True)):
        with pytest.raises(CacheError, match=r"format 7; this version of distill3d reads 1\. Update distill3d"):
            opening(tmp_path / "c")
    path.write_text("{")
    with pytest.raises(CacheError, match="damaged"):
        CacheReader(tmp_path / "c")


def test_a_damaged_index_is_told(tmp_path):
    write(tmp_path / "c", range(1))
    (tmp_path / "c" / "index.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(CacheError, match="index is damaged"):
        CacheReader(tmp_path / "c")


def test_a_torn_journal_line_is_ignored_and_a_damaged_one_told(tmp_path):
    with CacheWriter(tmp_path / "c", header=HEADER) as writer:
        for seed in range(3):
            writer.add(str(seed), *make_sample(seed))
        journal = (tmp_path / "c" / "journal.jsonl").read_bytes()
    folder = tmp_path / "c"
    (folder / "index.parquet").unlink()
    (folder / "journal.jsonl").write_bytes(journal[:-9])
    assert CacheReader(folder).keys() == ("0", "1")
    damaged = bytearray(journal)
    damaged[100] ^= 1
    (folder / "journal.jsonl").write_bytes(damaged)
    with pytest.raises(CacheError, match=r"line 1 of .* is damaged"):
        CacheReader(folder)


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


def as_it_is(value: np.ndarray) -> np.ndarray:
    """Hand it on as it is; the default would make a tensor of it in the worker."""
    return value


class Samples(torch.utils.data.Dataset):
    """What a training run makes of a reader."""

    def __init__(self, reader: CacheReader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, position: int) -> np.ndarray:
        sample = self.reader[position]
        # An array rather than a tensor: tensors travel through sockets, which the tests refuse.
        return torch.cat([sample.prediction.pointmap_world.flatten(), sample.views.images.flatten()]).numpy()


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_what_the_main_process_reads(tmp_path, context):
    write(tmp_path / "c", range(4))
    dataset = Samples(CacheReader(tmp_path / "c"))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=context, collate_fn=as_it_is
    )
    found = list(loader)
    assert len(found) == 4
    for position, value in enumerate(found):
        assert np.array_equal(value, dataset[position])


def test_threads_and_pickles_share_a_reader(tmp_path):
    write(tmp_path / "c", range(4))
    reader = CacheReader(tmp_path / "c")
    keys = list(reader.keys()) * 5
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda key: reader.load(key).prediction.pointmap_world, keys))
    copy = pickle.loads(pickle.dumps(reader))
    for key, value in zip(keys, found, strict=True):
        assert torch.equal(value, copy.load(key).prediction.pointmap_world)


def test_no_pickle_is_read_or_written(tmp_path):
    code = (
        "import sys, builtins\n"
        "import distill3d.cache.reader, distill3d.cache.writer, pickle\n"
        "def refuse(*a, **k): raise SystemExit('pickled')\n"
        "pickle.dumps = pickle.loads = pickle.load = pickle.dump = refuse\n"
        "import torch; from distill3d.cache import CacheReader, CacheWriter; from distill3d.types import *\n"
        "views = Views(images=torch.rand(1, 2, 3, 4, 4))\n"
        "with CacheWriter(sys.argv[1]) as w: w.add('a', views, Prediction(depth=torch.ones(1, 2, 4, 4)))\n"
        "print(CacheReader(sys.argv[1]).load('a').prediction.depth.sum().item())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], capture_output=True, text=True)
    assert done.stdout.strip() == "32.0", done.stderr


def test_describe_tells_the_cache_in_numbers(tmp_path):
    write(tmp_path / "c", range(2))
    found = CacheReader(tmp_path / "c").describe()
    assert json.loads(json.dumps(found)) == found
    assert {name: found[name] for name in ("samples", "views", "sizes", "teacher", "licence", "codec")} == {
        "samples": 2, "views": 6, "sizes": ["6x8"], "teacher": "test-teacher", "licence": "CC0-1.0", "codec": "exact",
    }  # fmt: skip
    assert found["world_maps_as_similarity"] == 6
    shard = (tmp_path / "c" / "shard-00000.tar").stat().st_size
    assert 0.3 * shard < found["bytes"] < shard
    assert np.isclose(found["bytes_per_view"], found["bytes"] / 6, atol=1)


@pytest.mark.slow
def test_a_process_that_read_a_cache_ends_well(tmp_path):
    # Arrow's threads, started after torch, used to abort the process on its way out.
    write(tmp_path / "c", range(2))
    code = "import sys, torch\nfrom distill3d.cache import CacheReader\nprint(len(CacheReader(sys.argv[1])))"
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "2", "")
