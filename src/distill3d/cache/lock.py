"""One writer at a time."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import ClassVar

from distill3d.cache.format import LOCK_NAME
from distill3d.errors import CacheError
from distill3d.files import output_errors


class WriterLock:
    """Held while a process writes to a cache; the system takes it back when the process dies, however it dies.

    Raises:
        CacheError: another writer holds it.
        OutputError: the folder cannot be written to.
    """

    _ours: ClassVar[set[Path]] = set()  # a process may lock its own lock again, so we remember

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._process = os.getpid()
        busy = CacheError(f"another run is writing to {folder}; wait for it, or choose another output folder")
        if self._folder in WriterLock._ours:
            raise busy
        with output_errors(folder / LOCK_NAME):
            self._file = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise busy from None
            raise
        WriterLock._ours.add(self._folder)

    @property
    def held(self) -> bool:
        """Whether this very process holds it; a forked child does not."""
        return self._folder in WriterLock._ours and os.getpid() == self._process

    def release(self) -> None:
        """Let the next writer in."""
        if self.held:
            WriterLock._ours.discard(self._folder)
            with contextlib.suppress(OSError):
                os.close(self._file)
