"""`distill3d cache show`: what a cache holds."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from distill3d.cli.cache.words import told
from distill3d.cli.outcome import Outcome


def show(cache: Annotated[str, tyro.conf.Positional], page: Path | None = None, samples: int = 6) -> Outcome:
    """Say what a cache holds, who made it and under which licence.

    Args:
        cache: folder of the cache, or its address (s3://...).
        page: HTML file to write, with photos, depth and confidence of some samples.
        samples: how many of them.
    """
    from distill3d.cache import CacheReader

    reader = CacheReader(cache)
    about = reader.describe()
    if page is not None:
        from distill3d.viewer.cachepage import cache_report
        from distill3d.viewer.report import write_report

        about["page"] = str(write_report(page, cache_report(reader, samples=samples)))
    return Outcome({**about, "header": asdict(reader.header)}, told(about))
