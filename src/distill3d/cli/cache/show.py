"""`distill3d cache show`: what a cache holds."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from distill3d.cli.cache.words import told
from distill3d.cli.outcome import Outcome


def show(cache: Annotated[Path, tyro.conf.Positional]) -> Outcome:
    """Say what a cache holds, who made it and under which licence.

    Args:
        cache: folder of the cache.
    """
    from distill3d.cache import CacheReader

    reader = CacheReader(cache)
    return Outcome({**reader.describe(), "header": asdict(reader.header)}, told(reader.describe()))
