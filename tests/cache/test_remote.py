"""A cache in object storage: read through fsspec, with a copy on this machine that stays within its bound."""

import os
import pickle

import pytest
import torch

from distill3d.cache import CacheReader
from distill3d.cache import remote as remote_module
from distill3d.cache.remote import LocalCopy, RemoteShards, as_url, is_url
from distill3d.errors import CacheError

from .samples import assert_equal_records, write

SECRET = {"key": "testing", "secret": "testing"}


@pytest.fixture(scope="module")
def server():
    """A server that speaks S3 on this machine."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server, tmp_path):
    """A cache of four samples in a bucket, and the options that reach it."""
    import s3fs

    write(tmp_path / "c", range(4))
    options = {**SECRET, "client_kwargs": {"endpoint_url": server}}
    system = s3fs.S3FileSystem(**options, skip_instance_cache=True)
    name = f"bucket-{os.getpid()}-{abs(hash(str(tmp_path))) % 10**8}"
    system.mkdir(name)
    for path in (tmp_path / "c").iterdir():
        system.pipe_file(f"{name}/rooms/{path.name}", path.read_bytes())
    return f"s3://{name}/rooms", options, tmp_path / "c", system


def test_a_bucket_reads_as_the_folder_it_was_copied_from(bucket, tmp_path):
    url, options, folder, _ = bucket
    copy = LocalCopy(folder=tmp_path / "copy")
    local, far = CacheReader(folder), CacheReader(url, local_copy=copy, storage_options=options)
    assert far.keys() == local.keys()
    assert far.verify() == []
    assert far.failures() == local.failures()
    for key in [sample.key for sample in local]:
        assert_equal_records(far.load(key, [2, 0]).prediction, local.load(key, [2, 0]).prediction)
    again = pickle.loads(pickle.dumps(far))
    assert torch.equal(again[0].views.images, local[0].views.images)


def test_what_was_read_is_not_fetched_again_and_the_copy_stays_bounded(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_module, "BLOCK_BYTES", 2048)
    url, options, folder, system = bucket
    copy = LocalCopy(folder=tmp_path / "copy", max_bytes=1 << 20)
    reader = CacheReader(url, local_copy=copy, storage_options=options)
    first = reader.load("scene/0").prediction.pointmap_world
    system.rm(f"{url}/shard-00000.tar")  # only the copy is left
    assert torch.equal(reader.load("scene/0").prediction.pointmap_world, first)
    with pytest.raises(CacheError, match=r"there is no s3://"):
        reader.load("scene/3")
    system.pipe_file(f"{url}/shard-00000.tar", (folder / "shard-00000.tar").read_bytes())

    # A shard that grows after its end was copied is read on.
    reader.load("scene/3")
    end = CacheReader(folder).entry("scene/3").end
    write(folder, [7], codec="exact", resume=True)
    for path in folder.iterdir():
        system.pipe_file(f"{url}/{path.name}", path.read_bytes())
    grown = CacheReader(url, local_copy=copy, storage_options=options)
    assert grown.entry("scene/7").end > end
    assert_equal_records(grown.load("scene/7").prediction, CacheReader(folder).load("scene/7").prediction)

    small = LocalCopy(folder=tmp_path / "small", max_bytes=6 * 2048)
    reader = CacheReader(url, local_copy=small, storage_options=options)
    for key in (*reader.keys(), *reader.keys()):
        assert_equal_records(reader.load(key).prediction, CacheReader(folder).load(key).prediction)
        kept = sum(path.stat().st_size for path in (tmp_path / "small").glob("*/shard-*"))
        assert kept <= small.max_bytes
    assert kept > 0


def test_a_forked_worker_opens_its_own_connection(bucket, tmp_path):
    url, options, folder, _ = bucket
    reader = CacheReader(url, local_copy=LocalCopy(folder=tmp_path / "copy"), storage_options=options)
    reader.load("scene/0")
    pid = os.fork()
    if pid == 0:
        try:
            same = torch.equal(
                reader.load("scene/1").prediction.pointmap_world,
                CacheReader(folder).load("scene/1").prediction.pointmap_world,
            )
            os._exit(42 if same else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42


def test_addresses_survive_being_paths_and_folders_are_folders(tmp_path):
    from pathlib import Path

    assert as_url(Path("s3://bucket/cache")) == as_url("s3://bucket/cache/") == "s3://bucket/cache"
    assert is_url("gs://bucket/cache")
    assert not is_url(tmp_path)
    assert not is_url("relative/folder")


def test_what_cannot_be_reached_is_told(tmp_path, monkeypatch):
    copy = LocalCopy(folder=tmp_path / "copy")
    with pytest.raises(CacheError, match=r"there is no memory://nowhere"):
        CacheReader("memory://nowhere", local_copy=copy)
    with pytest.raises(CacheError, match=r"Install the extra: pip install 'distill3d\[s3\]'"):
        RemoteShards("unheard-of://bucket/cache", copy)
    monkeypatch.setenv("DISTILL3D_CACHE_GB", "much")
    with pytest.raises(CacheError, match="DISTILL3D_CACHE_GB is 'much'"):
        LocalCopy.default()
    monkeypatch.setenv("DISTILL3D_CACHE_GB", "0.5")
    monkeypatch.setenv("DISTILL3D_CACHE_FOLDER", str(tmp_path))
    assert LocalCopy.default() == LocalCopy(folder=tmp_path, max_bytes=500_000_000)
