"""`distill3d cache check`: is every blob what was written?"""

from pathlib import Path
from typing import Annotated

import tyro

from distill3d.cli.outcome import Outcome
from distill3d.errors import CacheError


def check(cache: Annotated[Path, tyro.conf.Positional]) -> Outcome:
    """Compare every blob of a cache with its checksum.

    Args:
        cache: folder of the cache.
    """
    from distill3d.cache import CacheReader

    reader = CacheReader(cache)
    damage = reader.verify()
    if damage:
        listed = "\n".join(f"  {entry}" for entry in damage[:10])
        raise CacheError(f"{cache}: {len(damage)} blobs are damaged. Delete the cache and build it again.\n{listed}")
    return Outcome({**reader.describe(), "damaged": 0}, f"{cache}: {len(reader)} samples, none damaged")
