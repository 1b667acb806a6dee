"""Bytes of a shard: from a file that is mapped into memory, or from object storage."""

import mmap
from pathlib import Path
from typing import Any, Protocol

from distill3d.cache import format as layout
from distill3d.errors import CacheError


class Shards(Protocol):
    """Where the shards of a cache are."""

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """That many bytes, fewer at the end of the shard.

        Raises:
            CacheError: the shard cannot be read.
        """


class LocalShards:
    """Shards in a folder, mapped on first use. Threads share it; forks and pickles of it map for themselves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[int, mmap.mmap] = {}

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """That many bytes, fewer at the end of the shard.

        Raises:
            CacheError: the shard cannot be read.
        """
        mapped = self._maps.get(shard)
        if mapped is None or len(mapped) < offset + size:  # a shard that is still being written has grown
            mapped = self._maps[shard] = self._map(shard)
        return mapped[offset : offset + size]

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_maps": {}}

    def _map(self, shard: int) -> mmap.mmap:
        path = self._folder / layout.shard_name(shard)
        try:
            with path.open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped: ValueError
            reason = error.strerror if isinstance(error, OSError) else "it is empty"
            raise CacheError(f"cannot open {path} ({reason}); restore it, or build the cache again") from None
