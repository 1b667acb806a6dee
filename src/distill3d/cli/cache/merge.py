"""`distill3d cache merge`: several caches as one."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from distill3d.cli.cache.words import told
from distill3d.cli.outcome import Outcome


def merge(caches: Annotated[list[str], tyro.conf.Positional], out: Path, resume: bool = False) -> Outcome:
    """Copy the samples of several caches of one kind into one, part by part.

    Parts that are consecutive stretches of one run give that run's cache, byte for byte.

    Args:
        caches: folders or addresses, made with the same settings.
        out: folder of the merged cache.
        resume: go on with a merge that was begun.
    """
    from distill3d.cache import CacheReader
    from distill3d.cache.merge import merge_caches
    from distill3d.progress import ProgressBar

    total = sum(len(CacheReader(cache)) for cache in caches)
    with ProgressBar("merge", total, unit="samples") as bar:
        done = merge_caches(caches, out, resume=resume, advance=bar.advance)
    summary = {"path": str(out), **asdict(done)}
    return Outcome(summary, told(summary))
