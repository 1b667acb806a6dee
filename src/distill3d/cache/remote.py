"""Caches in object storage (s3://, gs://, ...), read through fsspec with a copy on this machine of bounded size.

A shard is fetched in blocks, each a file of its own that any number of processes may use and that appears whole or not
at all. When the copy grows beyond its bound, the blocks that were not used for longest go first.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill3d.cache import format as layout
from distill3d.errors import CacheError
from distill3d.files import PathLike, atomic_write_bytes

BLOCK_BYTES = 4 << 20
SCAN_SHARE = 16
"""The copy is measured again when this process has added one part in so many of the bound."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(.*)")  # a Path makes one slash of two
_SMALL_FILES = (layout.HEADER_NAME, layout.INDEX_NAME, layout.JOURNAL_NAME, layout.FAILURES_NAME)


@dataclass(frozen=True, kw_only=True)
class LocalCopy:
    """Where this machine keeps what it fetched, and how much of it."""

    folder: Path = Path(tempfile.gettempdir()) / "distill3d-cache"
    """Best on a local disk. `DISTILL3D_CACHE_FOLDER` names another by default."""
    max_bytes: int = 50 << 30
    """`DISTILL3D_CACHE_GB` says otherwise by default. A block more for each process may be there for a moment."""

    @classmethod
    def default(cls) -> "LocalCopy":
        """As the environment says.

        Raises:
            CacheError: the size there is no number above 0.
        """
        folder, size = os.environ.get("DISTILL3D_CACHE_FOLDER"), os.environ.get("DISTILL3D_CACHE_GB")
        found = cls(folder=Path(folder)) if folder else cls()
        if not size:
            return found
        try:
            gigabytes = float(size)
        except ValueError:
            gigabytes = 0.0
        if gigabytes <= 0:
            raise CacheError(f"DISTILL3D_CACHE_GB is {size!r}; expected a number of gigabytes above 0")
        return cls(folder=found.folder, max_bytes=int(gigabytes * 1e9))


def is_url(path: PathLike) -> bool:
    """Whether this is an address in object storage rather than a folder."""
    return _URL.fullmatch(str(path)) is not None


def as_url(path: PathLike) -> str:
    """The address with both its slashes."""
    found = _URL.fullmatch(str(path))
    assert found is not None
    return f"{found[1]}://{found[2].rstrip('/')}"


class RemoteShards:
    """Shards at an address. Threads share it; forks and pickles of it open connections of their own.

    Raises:
        CacheError: fsspec (or what it needs for this kind of address) is not installed.
    """

    def __init__(self, url: str, copy: LocalCopy | None = None, options: dict[str, Any] | None = None) -> None:
        self.url = as_url(url)
        self._copy = copy or LocalCopy.default()
        self._options = dict(options or {})
        self._blocks = self._copy.folder / hashlib.blake2b(self.url.encode(), digest_size=8).hexdigest()
        self._system: Any = None
        self._process = -1
        self._added = self._copy.max_bytes  # measure before the first block is added
        self._connect()

    def fetch_small_files(self) -> Path:
        """Copy header, index and lists, as they are now, and return their folder here.

        Raises:
            CacheError: the address cannot be reached.
        """
        folder = self._blocks / "index"
        system = self._connect()
        with _errors_of(self.url):
            there = {name.rsplit("/", 1)[-1] for name in system.ls(self.url, detail=False, refresh=True)}
            for name in _SMALL_FILES:
                if name in there:
                    atomic_write_bytes(folder / name, system.cat_file(f"{self.url}/{name}"))
                else:
                    (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """That many bytes, fewer at the end of the shard.

        Raises:
            CacheError: the shard cannot be reached.
        """
        parts: list[bytes] = []
        end = offset + size
        for number in range(offset // BLOCK_BYTES, -(-end // BLOCK_BYTES)):
            begin = number * BLOCK_BYTES
            data = self._block(shard, number)
            if len(data) < min(end - begin, BLOCK_BYTES):  # the copy may be of a shard that has grown since
                data = self._block(shard, number, fresh=True)
            parts.append(data[max(0, offset - begin) : end - begin])
        return b"".join(parts)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_system": None, "_process": -1}

    def _block(self, shard: int, number: int, *, fresh: bool = False) -> bytes:
        name = layout.shard_name(shard)
        path = self._blocks / f"{name}.{number:06d}"
        if not fresh:
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                os.utime(path)  # used just now
                return data
        start = number * BLOCK_BYTES
        with _errors_of(f"{self.url}/{name}"):
            data = self._connect().cat_file(f"{self.url}/{name}", start=start, end=start + BLOCK_BYTES)
        self._make_room(len(data))
        atomic_write_bytes(path, data)
        return bytes(data)

    def _make_room(self, size: int) -> None:
        self._added += size
        if self._added < self._copy.max_bytes // SCAN_SHARE:
            return
        self._added = size
        found = []
        for path in self._copy.folder.glob("*/shard-*"):
            with contextlib.suppress(OSError):  # another process may have removed it
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        # Leave room for what comes before the next look.
        over = sum(entry[1] for entry in found) + size - self._copy.max_bytes * (SCAN_SHARE - 1) // SCAN_SHARE
        for _, length, path in sorted(found):
            if over <= 0:
                break
            path.unlink(missing_ok=True)
            over -= length

    def _connect(self) -> Any:
        """The file system of this process: connections do not survive a fork."""
        if self._system is None or self._process != os.getpid():
            try:
                import fsspec  # type: ignore[import-untyped]

                protocol = self.url.split("://")[0]
                self._system = fsspec.filesystem(protocol, skip_instance_cache=True, **self._options)
            except (ImportError, ValueError) as error:
                raise CacheError(
                    f"cannot open {self.url}: {error}. Install the extra: pip install 'distill3d[s3]'."
                ) from error
            self._process = os.getpid()
        return self._system


@contextlib.contextmanager
def _errors_of(place: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise CacheError(f"there is no {place}; give the address that the cache was copied to") from None
    except OSError as error:
        raise CacheError(
            f"cannot read {place} ({error}); check the address, the credentials and the network"
        ) from error
