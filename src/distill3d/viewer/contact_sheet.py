"""A manifest on one HTML page: a few frames of each scene, their depth, and where the cameras stand."""

import logging
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

import distill3d
from distill3d.data.check import SceneCheck
from distill3d.data.fit import long_side_size
from distill3d.data.frames import read_depth, read_picture
from distill3d.data.rows import ManifestRow
from distill3d.data.table import Manifest
from distill3d.data.video import VideoPool, spread
from distill3d.errors import DataError
from distill3d.files import atomic_write_bytes
from distill3d.progress import track
from distill3d.viewer.maps import color_bar_uri, jpeg_uri, map_levels, map_uri, shared_range, usable
from distill3d.viewer.report import page_environment

logger = logging.getLogger(__name__)

_THUMB_SIDE = 240
_PLOT_SIDE = 120.0
_SCALES = {"metric": "metres", "sfm": "one unknown length", "relative": "unknown in each map", "": "not stated"}


def write_contact_sheet(
    path: Path,
    manifest: Manifest,
    *,
    title: str,
    checks: Sequence[SceneCheck] = (),
    scenes: int = 40,
    frames: int = 6,
    seed: int = 0,
) -> Path:
    """Write the page; it needs no network and no other file. Frames that cannot be read are shown as such.

    Args:
        path: the HTML file.
        manifest: what is shown.
        title: heading of the page.
        checks: what `check_manifest` found; its scenes come first, suspicious ones before all.
        scenes: at most so many, drawn by `seed`.
        frames: of each scene, spread over it.
        seed: for the draw.

    Raises:
        OutputError: the file cannot be written.
    """
    found = {check.scene: check for check in checks}
    chosen = _chosen(manifest, found, scenes, seed)
    with VideoPool() as videos:
        shown = [
            _scene(manifest, scene, found.get(scene), frames, videos)
            for scene in track(chosen, "drawing scenes", unit="scenes")
        ]
    page = (
        page_environment()
        .get_template("contact_sheet.html.j2")
        .render(
            title=title,
            summary=manifest.summary(),
            scenes=shown,
            num_scenes=len(manifest.scenes()),
            bar=color_bar_uri("depth"),
            version=distill3d.__version__,
        )
    )
    atomic_write_bytes(path, page.encode("utf-8"))
    return path


def _chosen(manifest: Manifest, checks: Mapping[str, SceneCheck], count: int, seed: int) -> list[str]:
    scenes = manifest.scenes()
    order = sorted(range(len(scenes)), key=lambda place: (_worry(checks.get(scenes[place])), place))
    worried = [place for place in order if _worry(checks.get(scenes[place])) == 0][:count]
    others = [place for place in order if place not in set(worried)]
    drawn = others if len(others) <= count - len(worried) else random.Random(seed).sample(others, count - len(worried))
    return [scenes[place] for place in [*worried, *sorted(drawn)]]


def _worry(check: SceneCheck | None) -> int:
    return 1 if check is None or check.is_good else 0


def _scene(manifest: Manifest, scene: str, check: SceneCheck | None, count: int, videos: VideoPool) -> dict[str, Any]:
    numbers = manifest.frames(scene)
    rows = [manifest.row(scene, numbers[place]) for place in spread(len(numbers), count)]
    depths = [_depth(row, manifest.root) for row in rows]
    bounds = shared_range([depth for depth in depths if depth is not None])
    cells = [
        {"label": str(row.frame), **_photo(row, manifest.root, videos), "depth": _depth_uri(depth, bounds)}
        for row, depth in zip(rows, depths, strict=True)
    ]
    poses = [row.world_from_camera for row in manifest.rows(scene) if row.world_from_camera is not None]
    first = rows[0]
    facts = [
        f"{len(numbers)} frames of {first.width}×{first.height}",
        f"unit: {_SCALES[first.scale]}",
        *([f"lens: {first.distortion.model}"] if first.distortion else []),
        *([first.licence] if first.licence else []),
    ]
    return {
        "name": scene,
        "facts": " · ".join(facts),
        "cells": cells,
        "range": None if bounds is None else (f"{bounds[0]:.3g}", f"{bounds[1]:.3g}"),
        "plot": _plot(np.array(poses)) if len(poses) >= 2 else None,
        "check": None if check is None else check.describe().removeprefix(f"{scene}: "),
        "good": check is None or check.is_good,
    }


def _photo(row: ManifestRow, root: Path, videos: VideoPool) -> dict[str, Any]:
    height, width = long_side_size((row.height, row.width), _THUMB_SIDE)
    try:
        return {"uri": jpeg_uri(read_picture(row, root, (height, width), videos), quality=80), "problem": None}
    except DataError as error:
        return {"uri": None, "problem": str(error)}


def _depth(row: ManifestRow, root: Path) -> Float[np.ndarray, "height width"] | None:
    try:
        depth = read_depth(row, root)
    except DataError as error:
        logger.warning("%s", error)
        return None
    if depth is None:
        return None
    every = max(1, math.ceil(max(depth.shape) / _THUMB_SIDE))
    return depth[::every, ::every]


def _depth_uri(depth: Float[np.ndarray, "height width"] | None, bounds: tuple[float, float] | None) -> str | None:
    return None if depth is None else map_uri(map_levels(depth, bounds, valid=usable(depth)), "depth")


def _plot(world_from_camera: Float[np.ndarray, "cameras 4 4"]) -> Markup:
    """Cameras seen along the direction in which they spread least: dots, each with a line where it looks."""
    centres, forward = world_from_camera[:, :3, 3], world_from_camera[:, :3, 2]
    middle = centres.mean(axis=0)
    axes = np.linalg.svd(centres - middle, full_matrices=True)[2][:2]
    flat, looks = (centres - middle) @ axes.T, forward @ axes.T
    reach = max(float(np.abs(flat).max()), 1e-9)
    dots = flat / reach * (_PLOT_SIDE / 2 - 12)
    tips = dots + looks * 9
    lines = "".join(f"M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}" for (x, y), (u, v) in zip(dots, tips, strict=True))
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>' for x, y in dots)
    half = _PLOT_SIDE / 2
    box = f"{-half} {-half} {_PLOT_SIDE} {_PLOT_SIDE}"
    return Markup(
        f'<svg class="cameras" viewBox="{box}" role="img" aria-label="Where the cameras stand and look">'
        f'<path d="{lines}"/>{circles}</svg>'
    )
