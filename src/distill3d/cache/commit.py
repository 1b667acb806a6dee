"""Committing samples so that no crash can spoil a cache.

A sample is committed in four steps: its blobs are appended to the open shard; the shard is synced; one checksummed
line is appended to the journal; the journal is synced. The line is the commit. Whatever a crash leaves behind it
(bytes of a shard beyond the last committed sample, a torn line) is never read, and is cut off before anything is added.
"""

import contextlib
import os
from pathlib import Path

from distill3d.cache import format as layout
from distill3d.cache.index import (
    Index,
    SampleEntry,
    add_rows,
    journal_line,
    read_committed,
    read_index,
    read_journal,
    write_index,
)
from distill3d.errors import CacheError


class CommitLog:
    """The open shard and the journal of a cache; brings both to the last commit when it opens.

    The caller holds the lock of the cache. System errors pass through as `OSError`; call `give_up` after one.

    Raises:
        CacheError: a shard is shorter than what was committed to it.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.folder = folder
        self._shard_bytes = shard_bytes
        self._shard_file = self._journal_file = -1
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()  # of a file that a killed run was about to put in place
        self.index = read_committed(folder)
        """What was committed before this run."""
        self.pending: list[SampleEntry] = []
        try:
            self._open()
        except BaseException:
            self.release()
            raise

    def _open(self) -> None:
        self.shard, self.end = self.index.end()
        for path in self.folder.glob("shard-*.tar"):
            if path.name > layout.shard_name(self.shard):
                path.unlink()  # begun, but nothing in it was committed
        path = self.folder / layout.shard_name(self.shard)
        size = path.stat().st_size if path.exists() else 0
        if size < self.end:
            raise CacheError(
                f"{path} has {size} bytes, the index speaks of {self.end}: the shard was cut off. "
                "Restore it, or build the cache again."
            )
        self._shard_file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        _cut(self._shard_file, self.end)
        self._journal_file = os.open(self.folder / layout.JOURNAL_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        self._journal_end = read_journal(self.folder)[1]
        _cut(self._journal_file, self._journal_end)
        self._committed = (self.shard, self.end)
        sync_folder(self.folder)

    def place(self) -> tuple[int, int]:
        """Shard and offset where the next sample goes; begins a new shard when the open one is full."""
        if self.end >= self._shard_bytes:
            self.commit()
            write_all(self._shard_file, layout.END_OF_TAR)
            os.fsync(self._shard_file)
            os.close(self._shard_file)
            self._shard_file = -1
            self.shard, self.end = self.shard + 1, 0
            path = self.folder / layout.shard_name(self.shard)
            self._shard_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            sync_folder(self.folder)
        return self.shard, self.end

    def append(self, entry: SampleEntry, data: bytes) -> None:
        """Write a sample where `place` said; `commit` makes it count."""
        write_all(self._shard_file, data)
        self.end = entry.end
        self.pending.append(entry)

    def commit(self) -> None:
        """Make the samples appended so far part of the cache."""
        if not self.pending:
            return
        os.fsync(self._shard_file)
        lines = b"".join(map(journal_line, self.pending))
        write_all(self._journal_file, lines)
        os.fsync(self._journal_file)
        self._journal_end += len(lines)
        self._committed = (self.shard, self.end)
        self.pending.clear()

    def give_up(self) -> list[SampleEntry]:
        """After an error: free the space of what was not committed, as far as the system lets us; returns it."""
        shard, end = self._committed
        with contextlib.suppress(OSError):
            if self._journal_file >= 0:
                _cut(self._journal_file, self._journal_end)
            if self._shard_file >= 0 and shard == self.shard:
                _cut(self._shard_file, end)
        lost = list(self.pending)
        self.pending.clear()
        return lost

    def fold(self) -> None:
        """End the shard and move the journal into the index; judges by what is on disk alone."""
        entries, _ = read_journal(self.folder)
        table = add_rows(read_index(self.folder), entries)
        shard, end = Index(table).end()
        if shard == self.shard:
            _cut(self._shard_file, end)
            write_all(self._shard_file, layout.END_OF_TAR)
            os.fsync(self._shard_file)
        write_index(self.folder, table)
        # Until here the journal was the truth, from here on the index is; between the two they agree.
        (self.folder / layout.JOURNAL_NAME).unlink()
        sync_folder(self.folder)

    def release(self) -> None:
        """Close the files."""
        for file in (self._shard_file, self._journal_file):
            if file >= 0:
                os.close(file)
        self._shard_file = self._journal_file = -1


def write_all(file: int, data: bytes) -> None:
    """Write all of it; the system may take less at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cut(file: int, size: int) -> None:
    os.ftruncate(file, size)
    os.lseek(file, size, os.SEEK_SET)
