"""`distill3d manifest build|check|show|undistort|layouts`: one table of every photo or frame under a path."""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from distill3d.cli.outcome import Outcome, parse_subcommand

if TYPE_CHECKING:
    from distill3d.data.table import Manifest

_SHOWN = 10


def build(
    source: Annotated[Path, tyro.conf.Positional],
    out: Path,
    dataset: str | None = None,
    mode: Literal["images_only", "full"] = "full",
    by_time: bool = False,
    upright: bool = False,
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
        upright: turn pictures that are stored as the sensor lay, with cameras and depth (ARKitScenes).
        by_time: order the photos of a folder by the time in their EXIF, not by their names.
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
    from distill3d.errors import DataError

    options = BuildOptions(
        mode=mode,
        by_time=by_time,
        upright=upright,
        rate=rate,
        max_frames=max_frames,
        sharpest=sharpest,
        test_fraction=test_fraction,
        verify=verify,
    )
    if workers < 0:
        raise DataError(f"workers is {workers}, expected 1 or more processes, or 0 for one on each core.")
    try:
        previous = load_manifest(out) if out.is_file() and not fresh else None
    except DataError as error:
        raise DataError(f"{error} Choose another --out, or say --fresh to replace the file.") from error
    built = build_from(source, options, dataset=dataset, previous=previous, workers=workers or os.cpu_count() or 1)
    built.manifest.save(out)
    parts = {"read": built.read, "kept": built.kept, "dropped": built.dropped}
    ending = f"{built.read} parts read, {built.kept} unchanged, {built.dropped} gone; written to {out}"
    return _describe(built.manifest, built.skipped, ending, parts=parts)


def check(
    manifest: Annotated[Path, tyro.conf.Positional],
    root: Path | None = None,
    frames: int = 1000,
    scenes: int = 50,
    all: bool = False,
    html: Path | None = None,
) -> Outcome:
    """Decode a sample of the files, and compare depth between neighbouring views: wrong units, axes and poses show.

    Args:
        manifest: the Parquet file.
        root: where its files are now, if they were moved.
        frames: decode the files of so many frames.
        scenes: compare the depth of so many scenes.
        all: every frame and every scene.
        html: write what was found as a contact sheet, suspicious scenes first.
    """
    from distill3d.data.check import check_manifest
    from distill3d.viewer.contact_sheet import write_contact_sheet

    loaded = _opened(manifest, root)
    found = check_manifest(loaded, frames=None if all else frames, scenes=None if all else scenes)
    suspicious = [scene for scene in found.scenes if not scene.is_good]
    lines = [scene.describe() for scene in [*suspicious, *(scene for scene in found.scenes if scene.is_good)][:_SHOWN]]
    if len(found.scenes) > _SHOWN:
        lines.append(f"... and {len(found.scenes) - _SHOWN} more scenes (--json lists all)")
    broken = f"{len(found.broken)} of {found.frames} frames have a file that cannot be read"
    lines.append(broken if found.broken else f"every file of {found.frames} frames can be read")
    if found.scenes:
        lines.append(f"{len(found.scenes)} scenes compared, {len(suspicious)} suspicious")
    if html is not None:
        lines.append(f"written to {write_contact_sheet(html, loaded, title=manifest.name, checks=found.scenes)}")
    compared = [
        {**dataclasses.asdict(scene), "share": _number(scene.share), "error": _number(scene.error)}
        for scene in found.scenes
    ]
    return _describe(loaded, found.broken, "\n".join(lines), scenes_compared=compared, frames_read=found.frames)


def show(
    manifest: Annotated[Path, tyro.conf.Positional],
    root: Path | None = None,
    html: Path | None = None,
    scenes: int = 40,
) -> Outcome:
    """Say what a manifest holds; with --html as a page with pictures, depth and cameras.

    Args:
        manifest: the Parquet file.
        root: where its files are now, if they were moved.
        html: the page to write; it needs no network and no other file.
        scenes: at most so many on the page.
    """
    from distill3d.viewer.contact_sheet import write_contact_sheet

    loaded = _opened(manifest, root)
    if html is None:
        return _describe(loaded, (), f"{manifest} (--html PAGE shows it)")
    page = write_contact_sheet(html, loaded, title=manifest.name, scenes=scenes)
    return _describe(loaded, (), f"{page}: open it in any browser", page=str(page))


def undistort(manifest: Annotated[Path, tyro.conf.Positional], out: Path, root: Path | None = None) -> Outcome:
    """Write the pictures and depth of known lenses as those of a pinhole, in annotated scenes with their own manifest.

    Args:
        manifest: the Parquet file.
        out: folder of the new scenes; those that it has already are kept.
        root: where the files of the manifest are now, if they were moved.
    """
    from distill3d.data.manifest import build_manifest
    from distill3d.data.undistort import undistort_manifest

    skipped = undistort_manifest(_opened(manifest, root), out)
    made, _ = build_manifest(out, dataset="annotated")
    path = made.save(out / "manifest.parquet")
    return _describe(made, skipped, f"written to {path}")


def layouts() -> Outcome:
    """List what `manifest build` can read: your own things, training sets and evaluation sets, with their licences."""
    from distill3d.data import datasets

    specs = {name: datasets.get(name) for name in datasets.names()}
    width = max(map(len, specs)) + 2
    lines = []
    for role, heading in (("own", "Your own"), ("training", "Training sets"), ("evaluation", "Evaluation sets")):
        lines += [f"{heading}:"]
        for name, spec in specs.items():
            if spec.role == role:
                lines.append(f"  {name:<{width}}{spec.title}" + (f" ({spec.licence})" if spec.licence else ""))
    told = ("title", "role", "url", "size", "licence", "sharing")
    data = {name: {field: getattr(spec, field) for field in told} for name, spec in specs.items()}
    return Outcome({"layouts": data}, "\n".join(lines))


def _opened(path: Path, root: Path | None) -> "Manifest":
    """A manifest with its root where the command line says.

    Raises:
        DataError: it cannot be read, or there is no such root.
    """
    from distill3d.data.table import load_manifest
    from distill3d.errors import DataError

    if root is not None and not root.is_dir():
        raise DataError(f"The root {root} is no folder on this machine; expected the one that the photos lie in.")
    return load_manifest(path, root)


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else value


def _describe(manifest: Any, skipped: Sequence[Any], ending: str, **more: Any) -> Outcome:
    summary = manifest.summary()
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in summary.items()]
    lines += [f"left out: {entry.path}: {entry.reason}" for entry in skipped[:_SHOWN]]
    if len(skipped) > _SHOWN:
        lines.append(f"... and {len(skipped) - _SHOWN} more (--json lists all)")
    listed = [{"path": str(entry.path), "reason": entry.reason} for entry in skipped]
    return Outcome({**summary, **more, "skipped": listed}, "\n".join([*lines, ending]))


WORDS: dict[str, Callable[..., Outcome]] = {
    "build": build,
    "check": check,
    "show": show,
    "undistort": undistort,
    "layouts": layouts,
}


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    return parse_subcommand(WORDS, "manifest", arguments)
