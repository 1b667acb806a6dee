"""`distill3d manifest build|check|show`: one table of every photo or frame under a path."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from distill3d.cli.outcome import Outcome, parse_subcommand

_SHOWN = 10


def build(
    source: Annotated[Path, tyro.conf.Positional],
    out: Path,
    dataset: str | None = None,
    mode: Literal["images_only", "full"] = "full",
    test_fraction: float = 0.0,
    verify: bool = False,
    rate: float = 2.0,
    max_frames: int | None = None,
    sharpest: bool = False,
    fresh: bool = False,
    workers: int = 0,
) -> Outcome:
    """List the frames of photos, videos, a data set as it was downloaded, or a project with cameras; the kind is found.

    Where the manifest exists already, only what is new or has changed is read, and what is gone is dropped.

    Args:
        source: where the photos are.
        out: the Parquet file to write.
        dataset: name of the layout, where several would fit.
        mode: images_only leaves cameras and depth aside, and works where they were not downloaded.
        test_fraction: share of the frames held out, for sources that do not say it themselves.
        verify: decode every file now, instead of trusting headers.
        rate: frames per second taken from videos.
        max_frames: at most this many frames from each video.
        sharpest: take the sharpest frame near each chosen moment of a video, and none while the camera stands still.
        fresh: read everything again, whether it has changed or not.
        workers: processes that read; 0 takes one for each core.
    """
    from distill3d.data.manifest import BuildOptions
    from distill3d.data.manifest import build as build_from
    from distill3d.data.table import load_manifest

    options = BuildOptions(
        mode=mode,
        rate=rate,
        max_frames=max_frames,
        sharpest=sharpest,
        test_fraction=test_fraction,
        verify=verify,
    )
    previous = load_manifest(out) if out.is_file() and not fresh else None
    built = build_from(source, options, dataset=dataset, previous=previous, workers=workers or os.cpu_count() or 1)
    built.manifest.save(out)
    parts = {"read": built.read, "kept": built.kept, "dropped": built.dropped}
    ending = f"{built.read} parts read, {built.kept} unchanged, {built.dropped} gone; written to {out}"
    return _describe(built.manifest, built.skipped, ending, parts=parts)


def check(manifest: Annotated[Path, tyro.conf.Positional], root: Path | None = None) -> Outcome:
    """Decode every file that a manifest names, and list those that fail.

    Args:
        manifest: the Parquet file.
        root: where its files are now, if they were moved.
    """
    from distill3d.data.table import load_manifest
    from distill3d.data.verify import verify_files

    loaded = load_manifest(manifest, root)
    bad = verify_files(loaded)
    return _describe(loaded, bad, "every file can be read" if not bad else f"{len(bad)} files cannot be read")


def show(manifest: Annotated[Path, tyro.conf.Positional], root: Path | None = None) -> Outcome:
    """Say what a manifest holds.

    Args:
        manifest: the Parquet file.
        root: where its files are now, if they were moved.
    """
    from distill3d.data.table import load_manifest

    return _describe(load_manifest(manifest, root), (), str(manifest))


def _describe(manifest: Any, skipped: Sequence[Any], ending: str, **more: Any) -> Outcome:
    summary = manifest.summary()
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in summary.items()]
    lines += [f"left out: {entry.path}: {entry.reason}" for entry in skipped[:_SHOWN]]
    if len(skipped) > _SHOWN:
        lines.append(f"... and {len(skipped) - _SHOWN} more (--json lists all)")
    listed = [{"path": str(entry.path), "reason": entry.reason} for entry in skipped]
    return Outcome({**summary, **more, "skipped": listed}, "\n".join([*lines, ending]))


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    return parse_subcommand({"build": build, "check": check, "show": show}, "manifest", arguments)
