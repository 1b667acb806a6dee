"""A merge of parts is the cache that one run would have made."""

import dataclasses

import pytest

from distill3d.cache import CacheReader, CacheWriter
from distill3d.cache.merge import merge_caches
from distill3d.errors import CacheError

from .samples import HEADER, make_sample, write

FILES = ("cache.json", "index.parquet", "shard-00000.tar")


def same_files(first, second):
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in FILES)


@pytest.mark.parametrize("codec", ["exact", "compact"])
def test_consecutive_parts_give_the_run_byte_for_byte(tmp_path, codec):
    write(tmp_path / "whole", [3, 0, 4, 1], codec=codec)
    write(tmp_path / "a", [3, 0], codec=codec)
    write(tmp_path / "b", [4, 1], codec=codec)
    done = merge_caches([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert (done.num_samples, done.num_copied, done.num_repeated) == (4, 4, 0)
    assert same_files(tmp_path / "m", tmp_path / "whole")


def test_interleaved_parts_give_the_run_when_its_order_is_told(tmp_path):
    write(tmp_path / "whole", range(5))
    write(tmp_path / "a", [4, 0, 2])
    write(tmp_path / "b", [1, 3, 2])  # both workers made 2
    done = merge_caches([tmp_path / "a", tmp_path / "b"], tmp_path / "m", keys=[f"scene/{n}" for n in range(9)])
    assert done.num_repeated == 1
    assert same_files(tmp_path / "m", tmp_path / "whole")


def test_a_merge_goes_on_where_it_stopped(tmp_path):
    write(tmp_path / "whole", range(4))
    write(tmp_path / "a", range(2))
    write(tmp_path / "b", range(2, 4))
    merge_caches([tmp_path / "a"], tmp_path / "m")
    with pytest.raises(CacheError, match="Resume it"):
        merge_caches([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    done = merge_caches([tmp_path / "a", tmp_path / "b"], tmp_path / "m", resume=True)
    assert (done.num_samples, done.num_copied) == (4, 2)
    assert same_files(tmp_path / "m", tmp_path / "whole")


def test_what_does_not_belong_together_is_refused(tmp_path):
    write(tmp_path / "a", [0])
    with CacheWriter(tmp_path / "b", header=dataclasses.replace(HEADER, teacher="other")) as writer:
        writer.add("x", *make_sample(1))
    with pytest.raises(CacheError, match="teacher: the cache has 'test-teacher', this run 'other'"):
        merge_caches([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    with CacheWriter(tmp_path / "c", header=HEADER) as writer:
        writer.add("scene/0", *make_sample(7))
    with pytest.raises(CacheError, match=r"scene/0 is in .* with different content"):
        merge_caches([tmp_path / "a", tmp_path / "c"], tmp_path / "m")
    with pytest.raises(CacheError, match="nothing to merge"):
        merge_caches([], tmp_path / "m")


def test_failures_travel_unless_another_part_mended_them(tmp_path):
    write(tmp_path / "a", [0])
    with CacheWriter(tmp_path / "a", header=HEADER, resume=True) as writer:
        writer.skip("scene/1", "NaN")
        writer.skip("scene/2", "unreadable")
    write(tmp_path / "b", [1])
    merge_caches([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert CacheReader(tmp_path / "m").failures() == [{"key": "scene/2", "reason": "unreadable"}]
