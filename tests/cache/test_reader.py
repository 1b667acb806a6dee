import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from distill3d.cache import CacheReader, CacheWriter
from distill3d.cache.shards import LocalShards
from distill3d.errors import CacheError
from distill3d.types import select_views

from .samples import HEADER, assert_equal_records, make_sample, write


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
    real = LocalShards.read

    def spy(self, shard, offset, size):
        read.append((offset, size))
        return real(self, shard, offset, size)

    monkeypatch.setattr(LocalShards, "read", spy)
    reader.load("scene/0", views=[1])
    entry = reader._index.entry(0)
    assert sorted(read) == sorted(
        [(entry.label_offset[1], entry.label_size[1]), (entry.image_offset[1], entry.image_size[1])]
    )


def test_keys_are_sorted_whatever_the_order_they_came_in(tmp_path):
    write(tmp_path / "c", [5, 1, 3])
    reader = CacheReader(tmp_path / "c")
    assert reader.keys() == ("scene/1", "scene/3", "scene/5")
    assert len(reader) == 3
    assert reader[1].key == "scene/3"
    assert [sample.key for sample in reader] == list(reader.keys())


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
    assert {item.key for item in CacheReader(tmp_path / "c").verify()} == {"scene/0", "scene/1"}


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
