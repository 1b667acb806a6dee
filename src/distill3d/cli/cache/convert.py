"""`distill3d cache convert`: to and from the npz layout of the reference pipeline."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from distill3d.cli.cache.words import told
from distill3d.cli.outcome import Outcome
from distill3d.errors import ConfigError


def convert(
    source: Annotated[Path, tyro.conf.Positional],
    out: Path,
    images: Path | None = None,
    codec: Literal["exact", "compact"] = "exact",
    teacher: str = "unknown",
    licence: str = "unknown",
    resume: bool = False,
) -> Outcome:
    """Make a cache from the npz files of the Distill3R reference pipeline, or such files from a cache.

    Which of the two follows from what the source is. Nothing that is pickled in the npz files is run.

    Args:
        source: a cache of ours, or a folder with `consolidated.npz` files in it or below.
        out: folder to write.
        images: folder that the npz samples' photo paths are relative to; the source itself if not given.
        codec: of the new cache. exact keeps the npz files' float16 bit for bit.
        teacher: what made the npz files; they do not tell.
        licence: of the labels in the npz files; they do not tell.
        resume: go on with a conversion that was begun.
    """
    from distill3d.cache import CacheHeader, CacheReader
    from distill3d.cache.format import HEADER_NAME
    from distill3d.cache.npz import export_npz, find_npz_samples, import_npz
    from distill3d.progress import ProgressBar

    if not source.is_dir():
        raise ConfigError(f"{source} is no folder; give a cache, or a folder with consolidated.npz files")
    if (source / HEADER_NAME).exists():
        reader = CacheReader(source)
        with ProgressBar("export", len(reader), unit="samples") as bar:
            done = export_npz(reader, out, resume=resume, advance=bar.advance)
    else:
        header = CacheHeader(teacher=teacher, licence=licence, settings={"imported_from": "npz"})
        with ProgressBar("import", len(find_npz_samples(source)), unit="samples") as bar:
            done = import_npz(
                source, out, images=images or source, codec=codec, header=header, resume=resume, advance=bar.advance
            )
    summary: dict[str, Any] = {
        "path": str(done.path),
        "samples": done.num_samples,
        "existing": done.num_existing,
        "failed": len(done.failures),
    }
    failures = [f"{key}: {reason}" for key, reason in done.failures]
    return Outcome({**summary, "failures": failures}, told({**summary, "failures": failures[:5]}))
