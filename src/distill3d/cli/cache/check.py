"""`distill3d cache check`: is every blob what was written?"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from distill3d.cli.outcome import Outcome
from distill3d.errors import CacheError, ConfigError

MOST_TOLD = 10


def check(cache: Annotated[str, tyro.conf.Positional], repair: bool = False) -> Outcome:
    """Read every blob of a cache, compare it with its checksum and decode it.

    Args:
        cache: folder of the cache, or its address (s3://...).
        repair: make the index anew from the shards first; samples that are damaged leave it, and `cache build --resume`
            makes them again.
    """
    from distill3d.cache import CacheReader
    from distill3d.cache.remote import is_url
    from distill3d.progress import ProgressBar

    found: dict[str, object] = {}
    words = ""
    if repair:
        if is_url(cache):
            raise ConfigError(f"{cache} can only be read from here; repair it where it lies on a disk")
        found, words = _repair(Path(cache))
    reader = CacheReader(cache)
    about = reader.describe()
    with ProgressBar("check", about["views"], unit="views") as bar:
        damage = reader.verify(bar.advance)
    if damage:
        listed = "\n".join(f"  {item.key}, {item.blob}: {item.reason}" for item in damage[:MOST_TOLD])
        more = f"\n  and {len(damage) - MOST_TOLD} more" if len(damage) > MOST_TOLD else ""
        keys = len({item.key for item in damage})
        raise CacheError(
            f"{cache}: {len(damage)} blobs of {keys} samples are damaged. Restore the shards, or leave these samples "
            f"out with --repair and make them again with `cache build --resume`.\n{listed}{more}"
        )
    text = f"{cache}: {len(reader)} samples, {about['views']} views, none damaged"
    return Outcome({**about, "damaged": 0, **found}, words + text)


def _repair(cache: Path) -> tuple[dict[str, object], str]:
    from distill3d.cache.scan import rebuild_index
    from distill3d.progress import ProgressBar

    total = sum(path.stat().st_size for path in cache.glob("shard-*.tar"))
    with ProgressBar("scan shards", total, unit="bytes") as bar:
        scan = rebuild_index(cache, bar.advance)
    lines = [f"index made anew: {len(scan.entries)} samples found, {len(scan.lost)} lost"]
    lines += [f"  lost {item.folder} of {item.shard}: {item.reason}" for item in scan.lost[:MOST_TOLD]]
    return {"found": len(scan.entries), "lost": [asdict(item) for item in scan.lost]}, "\n".join(lines) + "\n"
