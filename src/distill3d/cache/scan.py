"""Finding samples without an index, from the tar members of the shards alone."""

import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from distill3d.cache import format as layout
from distill3d.cache.commit import CommitLog
from distill3d.cache.index import SampleEntry, as_table, write_index
from distill3d.cache.lock import WriterLock
from distill3d.errors import CacheError

_LABELS = re.compile(r"view-(\d+)\.labels")
_IMAGE = re.compile(r"view-(\d+)\.(png|jpg)")


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Members of a shard that make no whole sample."""

    shard: str
    folder: str
    """Of the sample inside the shard."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What the shards of a cache hold."""

    entries: tuple[SampleEntry, ...]
    lost: tuple[Lost, ...]


@dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    size: int
    crc: int
    data: bytes
    """Of `sample.json` only."""


def scan_shards(folder: Path, advance: Callable[[int], object] = lambda num_bytes: None) -> Scan:
    """Every whole sample of every shard, in the order they were written; each blob is compared with its checksum.

    A sample is whole when its last member `sample.json` is there and says of every other member what it is. The end of
    a shard that a killed run left half written is no loss and is passed over.

    Args:
        folder: of the cache.
        advance: told how many bytes were read, now and then.
    """
    entries: dict[str, SampleEntry] = {}
    lost: list[Lost] = []
    for path in sorted(folder.glob("shard-*.tar")):
        number = int(path.name.removeprefix("shard-").removesuffix(".tar"))
        open_sample: list[_Member] = []
        with path.open("rb") as file:
            for member in _members(file, path.stat().st_size, advance):
                inside = member.name.split("/", 1)[0]
                if open_sample and open_sample[0].name.split("/", 1)[0] != inside:
                    lost.append(Lost(shard=path.name, folder=open_sample[0].name.split("/")[0], reason="has no end"))
                    open_sample = []
                open_sample.append(member)
                if not member.name.endswith("/sample.json"):
                    continue
                try:
                    entry = _entry(number, open_sample)
                    entries.setdefault(entry.key, entry)
                except CacheError as error:
                    lost.append(Lost(shard=path.name, folder=inside, reason=str(error)))
                open_sample = []
    return Scan(entries=tuple(entries.values()), lost=tuple(lost))


def rebuild_index(folder: Path, advance: Callable[[int], object] = lambda num_bytes: None) -> Scan:
    """Write `index.parquet` anew from the shards; what is lost is left out, so that a resumed run makes it again.

    Raises:
        CacheError: no cache there, or another run is writing to it.
        OutputError: the folder cannot be written to.
    """
    layout.read_header(folder)
    lock = WriterLock(folder)
    try:
        found = scan_shards(folder, advance)
        write_index(folder, as_table(found.entries))
        (folder / layout.JOURNAL_NAME).unlink(missing_ok=True)  # the index now says all that it said
        log = CommitLog(folder, shard_bytes=1 << 62)  # cuts the last shard behind its last sample
        try:
            log.fold()
        finally:
            log.release()
    finally:
        lock.release()
    return found


def _members(file: BinaryIO, size: int, advance: Callable[[int], object]) -> Iterator[_Member]:
    """The members of a tar up to its end, or to where it is torn."""
    offset = 0
    while offset + layout.BLOCK <= size:
        file.seek(offset)
        try:
            head = tarfile.TarInfo.frombuf(file.read(layout.BLOCK), "ascii", "strict")
        except tarfile.HeaderError:
            return  # zeros end an archive; a torn header ends what is left of one
        begin = offset + layout.BLOCK
        data = file.read(head.size)
        if len(data) < head.size:
            return
        offset = begin + layout.round_up(head.size)
        kept = data if head.name.endswith("/sample.json") else b""
        yield _Member(head.name, begin, head.size, zlib.crc32(data), kept)
        advance(layout.BLOCK + layout.round_up(head.size))


def _entry(shard: int, members: list[_Member]) -> SampleEntry:
    """The row of the index for a sample, checked against what its last member says."""
    last = members[-1]
    try:
        said = json.loads(last.data)
        labels = {int(m[1]): member for member in members if (m := _LABELS.search(member.name))}
        images = {int(m[1]): member for member in members if (m := _IMAGE.search(member.name))}
        views = range(said["num_views"])
        for kind, found in (("label", labels), ("image", images)):
            for view, crc in zip(views, said[f"{kind}_crc"], strict=True):
                if view not in found:
                    raise CacheError(f"{said['key']}: the {kind} of view {view} is missing")
                if found[view].crc != crc:
                    raise CacheError(f"{said['key']}: the {kind} of view {view} is not what was written (checksum)")
        return SampleEntry(
            key=said["key"],
            shard=shard,
            height=said["height"],
            width=said["width"],
            num_views=said["num_views"],
            num_similarities=said["num_similarities"],
            info=json.dumps(said["info"], sort_keys=True),
            label_offset=tuple(labels[view].offset for view in views),
            label_size=tuple(labels[view].size for view in views),
            label_crc=tuple(said["label_crc"]),
            image_offset=tuple(images[view].offset for view in views),
            image_size=tuple(images[view].size for view in views),
            image_crc=tuple(said["image_crc"]),
            sample_offset=last.offset,
            sample_size=last.size,
            sample_crc=last.crc,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{last.name} cannot be read ({error!r})") from error
