"""Which samples are committed, and where their blobs lie: the journal of a running build and the Parquet index."""

import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill3d.cache.format import FORMAT, INDEX_NAME, JOURNAL_NAME, round_up
from distill3d.errors import CacheError
from distill3d.files import atomic_write_bytes


@dataclass(frozen=True, kw_only=True)
class SampleEntry:
    """One committed sample. Offsets count from the start of its shard; checksums are CRC-32 of the blob."""

    key: str
    shard: int
    height: int
    width: int
    num_views: int
    num_similarities: int
    """Views whose world map is kept as a similarity of the local one."""
    info: str
    """JSON that the maker of the sample wished to keep (scene, frames)."""
    label_offset: tuple[int, ...]
    label_size: tuple[int, ...]
    label_crc: tuple[int, ...]
    image_offset: tuple[int, ...]
    image_size: tuple[int, ...]
    image_crc: tuple[int, ...]
    sample_offset: int
    """Of `sample.json`, the last blob of the sample."""
    sample_size: int
    sample_crc: int

    @property
    def end(self) -> int:
        """First byte of the shard after this sample."""
        return self.sample_offset + round_up(self.sample_size)

    @property
    def num_bytes(self) -> int:
        """Bytes of the sample's blobs, without tar headers."""
        return sum(self.label_size) + sum(self.image_size) + self.sample_size


Column = np.ndarray[Any, np.dtype[Any]]

_SCALARS = {"key": pa.string(), "info": pa.string(), "shard": pa.int32(), "sample_crc": pa.uint32()}
_PLAIN = {"height": pa.int32(), "width": pa.int32(), "num_views": pa.int32(), "num_similarities": pa.int32()}
_LISTS = ("label_offset", "label_size", "label_crc", "image_offset", "image_size", "image_crc")


def _column_type(name: str) -> pa.DataType:
    if name in _LISTS:
        # Parquet calls the items so; another name would change the bytes of an index that is read and written again.
        return pa.list_(pa.field("element", pa.uint32() if name.endswith("_crc") else pa.int64()))
    return {**_SCALARS, **_PLAIN}.get(name, pa.int64())


SCHEMA = pa.schema(
    [(item.name, _column_type(item.name)) for item in fields(SampleEntry)],
    metadata={"distill3d.cache.format": str(FORMAT)},
)


def journal_line(entry: SampleEntry) -> bytes:
    """One line of the journal: length and CRC-32 of the JSON, then the JSON."""
    text = json.dumps(asdict(entry), separators=(",", ":")).encode()
    return b"%d %08x %s\n" % (len(text), zlib.crc32(text), text)


def parse_journal_line(line: bytes) -> SampleEntry | None:
    """The entry of a line without its newline; `None` when the line is torn."""
    try:
        length, crc, text = line.split(b" ", 2)
        if int(length) != len(text) or int(crc, 16) != zlib.crc32(text):
            return None
        found: dict[str, Any] = json.loads(text)
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
        return SampleEntry(**values)
    except (ValueError, TypeError):
        return None


def read_journal(folder: Path) -> tuple[list[SampleEntry], int]:
    """Entries of the journal, and how many of its bytes are good. A torn last line is a sample in flight: ignored.

    Raises:
        CacheError: a damaged line with good ones behind it, which no crash of a writer leaves.
    """
    path = folder / JOURNAL_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    entries: list[SampleEntry] = []
    good = 0
    # What follows the last newline was never finished.
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        entry = parse_journal_line(line)
        if entry is None:
            if len(data) > good + len(line) + 1:
                raise CacheError(
                    f"line {number} of {path} is damaged, with more lines behind it. "
                    "The disk changed it; restore the file, or build the cache again."
                )
            break
        entries.append(entry)
        good += len(line) + 1
    return entries, good


def as_table(entries: Sequence[SampleEntry]) -> pa.Table:
    """Entries as rows of the index."""
    return pa.Table.from_pylist([asdict(entry) for entry in entries], schema=SCHEMA)


def add_rows(table: pa.Table, entries: Sequence[SampleEntry]) -> pa.Table:
    """The table with the entries that it does not hold yet behind its rows."""
    known = set(table["key"].to_pylist())
    fresh = as_table([entry for entry in entries if entry.key not in known])
    return pa.concat_tables([table, fresh]).combine_chunks()


def write_index(folder: Path, table: pa.Table) -> None:
    """Write `index.parquet`, whole or not at all; the same rows give the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(table.combine_chunks(), buffer, compression="zstd")
    atomic_write_bytes(folder / INDEX_NAME, buffer.getvalue())


def read_index(folder: Path) -> pa.Table:
    """The Parquet index; empty when there is none yet.

    Raises:
        CacheError: the file is damaged or of another version.
    """
    path = folder / INDEX_NAME
    try:
        # Without Arrow's threads: they do not survive a fork, and with torch loaded first they abort the process when
        # it ends ("terminate called without an active exception", pyarrow 26 with torch 2.13).
        file = pq.ParquetFile(pa.BufferReader(path.read_bytes()), pre_buffer=False)
        table = file.read(use_threads=False)
    except FileNotFoundError:
        return SCHEMA.empty_table()
    except (pa.ArrowException, OSError) as error:
        raise CacheError(f"cannot read {path} ({error}); the index is damaged. Build it again.") from error
    found = (table.schema.metadata or {}).get(b"distill3d.cache.format", b"none").decode()
    if found != str(FORMAT) or not table.schema.equals(SCHEMA):
        raise CacheError(f"{path} has index format {found}; expected {FORMAT} with columns {SCHEMA.names}")
    return table


class Index:
    """The committed samples in the order of their keys, kept in flat arrays: small, quick to pickle and to fork."""

    def __init__(self, table: pa.Table) -> None:
        table = table.combine_chunks()
        keys = table["key"].to_pylist()
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
        table = table.take(pa.array(order)).combine_chunks()
        self.keys: list[str] = table["key"].to_pylist()
        self.info: list[str] = table["info"].to_pylist()
        self._row = {key: row for row, key in enumerate(self.keys)}
        numbers = [name for name in SCHEMA.names if name not in (*_LISTS, "key", "info")]
        self._scalars: dict[str, Column] = {name: table[name].to_numpy() for name in numbers}
        self._lists = {name: table[name].combine_chunks().flatten().to_numpy() for name in _LISTS}
        counts = self._scalars["num_views"]
        self._start = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        for name, values in self._lists.items():
            if len(values) != self._start[-1]:
                raise CacheError(f"the index has {len(values)} values of {name} for {self._start[-1]} views")

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: object) -> bool:
        return key in self._row

    def row(self, key: str) -> int:
        """Position of a key among all keys."""
        return self._row[key]

    def column(self, name: str) -> Column:
        """One number a sample (`height`, `num_views`, `shard`, ...), in the order of the keys."""
        return self._scalars[name]

    def entry(self, row: int) -> SampleEntry:
        """Everything about one sample."""
        begin, end = self._start[row], self._start[row + 1]
        found: dict[str, Any] = {"key": self.keys[row], "info": self.info[row]}
        found.update({name: int(values[row]) for name, values in self._scalars.items()})
        found.update({name: tuple(values[begin:end].tolist()) for name, values in self._lists.items()})
        return SampleEntry(**found)

    @property
    def num_bytes(self) -> int:
        """Bytes of all blobs, without tar headers."""
        views = sum(int(self._lists[name].sum()) for name in ("label_size", "image_size"))
        return views + int(self.column("sample_size").sum())

    def end(self) -> tuple[int, int]:
        """The last shard, and how many of its bytes are committed."""
        if not self.keys:
            return 0, 0
        shard = int(self.column("shard").max())
        rows = np.flatnonzero(self.column("shard") == shard)
        return shard, max(self.entry(int(row)).end for row in rows)


def read_committed(folder: Path) -> Index:
    """All samples that are committed, of a finished cache or of one still being written."""
    # The journal first: when its lines move into the index meanwhile, they are seen twice rather than never.
    entries, _ = read_journal(folder)
    return Index(add_rows(read_index(folder), entries))
