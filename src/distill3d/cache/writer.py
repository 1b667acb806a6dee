"""Writing a cache: samples in, one by one, each of them safe as soon as `add` returns."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from distill3d.cache import format as layout
from distill3d.cache.codec import Codec, get_codec
from distill3d.cache.commit import CommitLog, write_all
from distill3d.cache.format import CacheHeader
from distill3d.cache.index import read_committed
from distill3d.cache.lock import WriterLock
from distill3d.cache.packed import PackedSample, lay_out, pack_sample
from distill3d.errors import CacheError, OutputError
from distill3d.files import output_errors
from distill3d.types import Prediction, Views

logger = logging.getLogger(__name__)


class CacheWriter:
    """Adds samples to a cache; the only writer of it while open. Use it in a `with` statement.

    `sync_every` = 1 commits every sample at once. A larger number commits that many together, for slow disks: up to
    that many samples are then lost in a crash, and a sample becomes visible only with its group.

    Raises:
        CacheError: the cache exists and `resume` is off, was made with other settings, or is being written.
        OutputError: the folder holds something else, or cannot be written to.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        codec: str = "exact",
        header: CacheHeader | None = None,
        resume: bool = False,
        sync_every: int = 1,
    ) -> None:
        self.path = Path(path)
        asked = header or CacheHeader()
        self.codec: Codec = get_codec(codec, asked.codec_settings if asked.codec == codec else None)
        self.header = replace(asked, codec=codec, codec_settings=self.codec.settings())
        self._sync_every = max(1, sync_every)
        self._broken = self._closed = False
        with output_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(self.path)
        try:
            self._claim_folder(resume)
            with output_errors(self.path):
                self._log = CommitLog(self.path, self.header.shard_bytes)
        except BaseException:
            self._lock.release()
            raise
        self._keys = set(self._log.index.keys)
        self._num_bytes = self._log.index.num_bytes
        self._failed = _open_failures(self.path)
        if self._keys:
            logger.info("resuming %s: %d samples are there", self.path, len(self._keys))

    def _claim_folder(self, resume: bool) -> None:
        if not (self.path / layout.HEADER_NAME).exists():
            names = sorted(child.name for child in self.path.iterdir())
            # A run that was killed at its very start leaves its lock, and hidden temporary files.
            if foreign := [name for name in names if name != layout.LOCK_NAME and not name.startswith(".")]:
                raise OutputError(f"{self.path} holds other files ({foreign[0]}, ...); choose an empty or new folder")
            layout.write_header(self.path, self.header)
            return
        found = layout.read_header(self.path)
        if len(read_committed(self.path)):
            if not resume:
                raise CacheError(
                    f"{self.path} already holds a cache. Resume it (--resume), or choose another output folder."
                )
            layout.require_same_header(self.path, found, self.header)
        elif not resume or found.plain() != self.header.plain():
            # Of an earlier try that came to nothing: there is nothing to lose or to mix with.
            (self.path / layout.FAILURES_NAME).unlink(missing_ok=True)
            layout.write_header(self.path, self.header)

    @property
    def num_bytes(self) -> int:
        """Bytes of all blobs."""
        return self._num_bytes

    def __len__(self) -> int:
        return len(self._keys)

    def has(self, key: str) -> bool:
        """Whether the sample is in the cache (with `sync_every` above 1: or about to be)."""
        return key in self._keys

    def add(self, key: str, views: Views, prediction: Prediction, *, info: Mapping[str, Any] | None = None) -> int:
        """Keep one sample (a batch of 1) and return its bytes; `info` is JSON to keep with it.

        Raises:
            CacheError: the key is taken, or the labels do not fit the images.
            OutputError: the disk is full or refuses; everything committed before stays valid.
        """
        self._require_free(key)  # before the work of encoding
        packed = pack_sample(self.codec, key, views, prediction, info, jpeg_quality=self.header.photo_quality)
        return self.add_packed(packed)

    def add_packed(self, sample: PackedSample) -> int:
        """Keep a sample that `pack_sample` made with this writer's `codec`, here or elsewhere, and return its bytes.

        Raises:
            CacheError: the key is taken.
            OutputError: the disk is full or refuses; everything committed before stays valid.
        """
        self._require_free(sample.key)
        try:
            with output_errors(self.path):
                entry, data = lay_out(sample, *self._log.place())
                self._log.append(entry, data)
                if len(self._log.pending) >= self._sync_every:
                    self._log.commit()
        except BaseException as error:
            self._stop()
            if isinstance(error, OutputError):
                raise OutputError(f"{error} Everything committed is safe: resume when there is room.") from error
            raise
        self._keys.add(sample.key)
        self._num_bytes += entry.num_bytes
        return entry.num_bytes

    def skip(self, key: str, reason: str) -> None:
        """Note in `failures.jsonl` that a sample could not be made; a later run may try it again.

        Raises:
            OutputError: the disk is full or refuses.
        """
        self._require_usable()
        if (key, reason) in self._failed:
            return
        line = json.dumps({"key": key, "reason": reason}) + "\n"
        path = self.path / layout.FAILURES_NAME
        with output_errors(path):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                write_all(file, line.encode())
                os.fsync(file)
            finally:
                os.close(file)
        self._failed.add((key, reason))

    def close(self) -> None:
        """Commit what is pending, end the shard, and fold the journal into the index.

        Raises:
            OutputError: the disk is full or refuses; the journal then keeps what was committed.
        """
        if self._closed:
            return
        try:
            with output_errors(self.path):
                if not self._broken:
                    self._log.commit()
                self._log.fold()
        except (OSError, OutputError):
            if not self._broken:
                raise
            # The reason was told when it happened, and readers find the same samples in the journal.
            logger.warning("%s keeps its journal; a run that resumes it will finish the index", self.path)
        finally:
            self._closed = True
            self._log.release()
            self._lock.release()

    def __enter__(self) -> "CacheWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stop(self) -> None:
        self._broken = True
        lost = self._log.give_up()
        self._keys.difference_update(entry.key for entry in lost)

    def _require_free(self, key: str) -> None:
        self._require_usable()
        if key in self._keys:
            raise CacheError(f"sample {key} is already in {self.path}; ask `has` first")

    def _require_usable(self) -> None:
        if self._closed or self._broken:
            state = "closed" if self._closed else "stopped by an earlier error"
            raise CacheError(f"the writer of {self.path} is {state}; open it again with resume=True")
        if not self._lock.held:
            raise CacheError(f"the writer of {self.path} belongs to another process; write from there")


def _open_failures(folder: Path) -> set[tuple[str, str]]:
    path = folder / layout.FAILURES_NAME
    if path.exists() and not (data := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
    return {(item["key"], item["reason"]) for item in layout.read_failures(folder)}
