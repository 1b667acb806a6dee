"""The index can be made anew from the shards, and then equals the one that was lost."""

import dataclasses
import os

import pytest

from distill3d.cache import CacheReader, CacheWriter
from distill3d.cache.scan import rebuild_index, scan_shards
from distill3d.errors import CacheError

from .samples import HEADER, make_sample, write

SMALL_SHARDS = dataclasses.replace(HEADER, shard_bytes=9_000)


def write_shards(folder, seeds=range(5)):
    with CacheWriter(folder, header=SMALL_SHARDS) as writer:
        for seed in seeds:
            writer.add(f"scene/{seed}", *make_sample(seed), info={"frames": [seed]})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "writer.lock"}


@pytest.mark.parametrize("loss", ["removed", "damaged", "none"])
def test_a_lost_index_comes_back_byte_for_byte(tmp_path, loss):
    write_shards(tmp_path / "c")
    before = contents(tmp_path / "c")
    assert len(before) > 4  # several shards
    if loss == "removed":
        (tmp_path / "c" / "index.parquet").unlink()
    elif loss == "damaged":
        (tmp_path / "c" / "index.parquet").write_bytes(b"PAR1 nonsense")
    found = rebuild_index(tmp_path / "c")
    assert not found.lost
    assert contents(tmp_path / "c") == before


def test_a_build_that_was_killed_is_brought_to_an_end(tmp_path):
    pid = os.fork()
    if pid == 0:
        writer = CacheWriter(tmp_path / "c", header=HEADER)
        for seed in range(3):
            writer.add(f"scene/{seed}", *make_sample(seed), info={"frames": [seed, seed + 1]})
        os._exit(9)
    os.waitpid(pid, 0)
    with (tmp_path / "c" / "shard-00000.tar").open("ab") as file:
        file.write((tmp_path / "c" / "shard-00000.tar").read_bytes()[:3000])  # of a sample in flight
    (tmp_path / "c" / "journal.jsonl").write_bytes(b"damaged\ndamaged\n")
    with pytest.raises(CacheError, match="damaged"):
        CacheReader(tmp_path / "c")
    assert len(rebuild_index(tmp_path / "c").entries) == 3
    write(tmp_path / "whole", range(3))
    whole = contents(tmp_path / "whole")
    assert contents(tmp_path / "c") == whole


def test_a_damaged_sample_leaves_the_index_and_a_resumed_run_makes_it_again(tmp_path):
    write(tmp_path / "c", range(3))
    entry = CacheReader(tmp_path / "c").entry("scene/1")
    path = tmp_path / "c" / "shard-00000.tar"
    data = bytearray(path.read_bytes())
    data[entry.image_offset[2] + 30] ^= 1
    path.write_bytes(data)
    found = rebuild_index(tmp_path / "c")
    assert [item.reason for item in found.lost] == ["scene/1: the image of view 2 is not what was written (checksum)"]
    reader = CacheReader(tmp_path / "c")
    assert reader.keys() == ("scene/0", "scene/2")
    assert reader.verify() == []
    write(tmp_path / "c", [1], resume=True)
    reader = CacheReader(tmp_path / "c")
    assert reader.keys() == ("scene/0", "scene/1", "scene/2")
    assert reader.verify() == []
    assert reader.keys_as_written()[-1] == "scene/1"


def test_a_shard_cut_off_keeps_its_whole_samples(tmp_path):
    write(tmp_path / "c", range(3))
    entry = CacheReader(tmp_path / "c").entry("scene/2")
    os.truncate(tmp_path / "c" / "shard-00000.tar", entry.label_offset[1] + 5)
    assert [item.key for item in scan_shards(tmp_path / "c").entries] == ["scene/0", "scene/1"]
    with pytest.raises(CacheError):
        CacheReader(tmp_path / "c").load("scene/2")
    rebuild_index(tmp_path / "c")
    write(tmp_path / "c", [2], resume=True)
    write(tmp_path / "whole", range(3))
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


def test_a_cache_in_use_is_left_alone(tmp_path):
    with CacheWriter(tmp_path / "c", header=HEADER) as writer:
        writer.add("a", *make_sample(0))
        with pytest.raises(CacheError, match="another run is writing"):
            rebuild_index(tmp_path / "c")
    with pytest.raises(CacheError, match="not a teacher cache"):
        rebuild_index(tmp_path)
