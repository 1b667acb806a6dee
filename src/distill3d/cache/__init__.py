"""The teacher cache: tar shards with one blob per view, a Parquet index, checksums, crash-safe commits."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill3d.cache.format import CacheHeader as CacheHeader
    from distill3d.cache.reader import CachedSample as CachedSample
    from distill3d.cache.reader import CacheReader as CacheReader
    from distill3d.cache.writer import CacheWriter as CacheWriter

_HOMES = {
    "CacheHeader": "distill3d.cache.format",
    "CacheReader": "distill3d.cache.reader",
    "CacheWriter": "distill3d.cache.writer",
    "CachedSample": "distill3d.cache.reader",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distill3d.cache' has no attribute {name!r}")
