"""`distill3d manifest build|check|show`: one table of every photo or frame under a path."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from distill3d.cli.outcome import Outcome, parse_subcommand

_SHOWN = 10


def build(
    source: Annotated[Path, tyro.conf.Positional],
    out: Path,
    test_fraction: float = 0.0,
    verify: bool = False,
    rate: float = 2.0,
    max_frames: int | None = None,
) -> Outcome:
    """List the frames of a folder of photos, of scene folders, of videos, or of annotated scenes; the kind is found.

    Args:
        source: where the photos are.
        out: the Parquet file to write.
        test_fraction: share of the frames held out, for sources that do not say it themselves.
        verify: decode every file now, instead of trusting headers.
        rate: frames per second taken from videos.
        max_frames: at most this many frames from each video.
    """
    from distill3d.data.manifest import build_manifest

    manifest, skipped = build_manifest(
        source, test_fraction=test_fraction, verify=verify, rate=rate, max_frames=max_frames
    )
    manifest.save(out)
    return _describe(manifest, skipped, f"written to {out}")


def check(manifest: Annotated[Path, tyro.conf.Positional], root: Path | None = None) -> Outcome:
    """Decode every file that a manifest names, and list those that fail.

    Args:
        manifest: the Parquet file.
        root: where its files are now, if they were moved.
    """
    from distill3d.data.manifest import check_manifest
    from distill3d.data.table import load_manifest

    loaded = load_manifest(manifest, root)
    bad = check_manifest(loaded)
    return _describe(loaded, bad, "every file can be read" if not bad else f"{len(bad)} files cannot be read")


def show(manifest: Annotated[Path, tyro.conf.Positional], root: Path | None = None) -> Outcome:
    """Say what a manifest holds.

    Args:
        manifest: the Parquet file.
        root: where its files are now, if they were moved.
    """
    from distill3d.data.table import load_manifest

    return _describe(load_manifest(manifest, root), (), str(manifest))


def _describe(manifest: Any, skipped: Sequence[Any], ending: str) -> Outcome:
    summary = manifest.summary()
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in summary.items()]
    lines += [f"left out: {entry.path}: {entry.reason}" for entry in skipped[:_SHOWN]]
    if len(skipped) > _SHOWN:
        lines.append(f"... and {len(skipped) - _SHOWN} more (--json lists all)")
    listed = [{"path": str(entry.path), "reason": entry.reason} for entry in skipped]
    return Outcome({**summary, "skipped": listed}, "\n".join([*lines, ending]))


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    return parse_subcommand({"build": build, "check": check, "show": show}, "manifest", arguments)
