"""The report as one HTML file that needs no network: pictures, scripts and data are all inside."""

import logging
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import distill3d
from distill3d.files import atomic_write_bytes, megabytes
from distill3d.viewer.curves import draw_panel
from distill3d.viewer.maps import (
    Kind,
    color_bar_uri,
    jpeg_uri,
    map_levels,
    map_uri,
    shared_range,
    shrink,
    usable,
)
from distill3d.viewer.pointcloud import CloudScene, pack_scene, picture_of_scene
from distill3d.viewer.records import ReportData, ScoreTable, ViewRow, metric_for

logger = logging.getLogger(__name__)

PHOTO_SIDE = 640
STAGE_COLOR = (22, 25, 31)
"""Background of the point cloud, light and dark alike; the style sheet has the same."""


def page_environment() -> Environment:
    """Where the templates of our pages are, with everything escaped."""
    return Environment(
        loader=PackageLoader("distill3d.viewer", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_report(data: ReportData) -> str:
    """Give the page as text."""
    figures = [draw_panel(panel) for panel in data.panels]
    kinds: tuple[Kind, ...] = ("depth", "error", "confidence")
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            paragraphs=[part.strip() for part in data.summary.split("\n\n") if part.strip()],
            tables=[_table(table) for table in data.tables if table.rows],
            cloud=_cloud(data.cloud) if data.cloud is not None and len(data.cloud.cloud) else None,
            views=[_view(row, data.error_limit) for row in data.views],
            panels=[figure for figure in figures if figure is not None],
            facts=[group for group in data.facts if group.facts],
            bars={kind: color_bar_uri(kind) for kind in kinds} if data.views or data.cloud else {},
            version=distill3d.__version__,
        )
    )


def write_report(path: Path, data: ReportData) -> Path:
    """Write the page to `path`; sections without data are left out, texts are escaped.

    Raises:
        OutputError: no room for the file.
    """
    text = render_report(data).encode("utf-8")
    atomic_write_bytes(path, text)
    logger.info("report of %s written to %s", megabytes(len(text)), path)
    return path


def _cloud(scene: CloudScene) -> dict[str, Any]:
    return {
        "record": pack_scene(scene),
        "script": Markup(resources.files("distill3d.viewer").joinpath("static/pointcloud.js").read_text("utf-8")),
        "picture": jpeg_uri(picture_of_scene(scene, (540, 960), background=STAGE_COLOR), quality=82),
        "names": scene.names,
        "count": len(scene.cloud),
    }


def _table(table: ScoreTable) -> dict[str, Any]:
    """Format the scores, and mark the best of each column to the precision that is shown."""
    names = list(dict.fromkeys([*table.metrics, *(name for row in table.rows.values() for name in row)]))
    metrics = {name: table.metrics.get(name, metric_for(name)) for name in names}
    texts = {
        method: {name: _score(row.get(name), metrics[name].digits) for name in names}
        for method, row in table.rows.items()
    }
    best = {name: _best(table, name, metrics[name].better, metrics[name].digits) for name in names}
    rows = [
        {
            "method": method,
            "ranked": method not in table.unranked,
            "cells": [
                {
                    "text": texts[method][name],
                    "best": method not in table.unranked and texts[method][name] == best[name],
                }
                for name in names
            ],
        }
        for method in table.rows
    ]
    return {
        "title": table.title,
        "note": table.note,
        "rows_are": table.rows_are,
        "metrics": list(metrics.values()),
        "rows": rows,
    }


def _score(value: float | None, digits: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _best(table: ScoreTable, name: str, better: str | None, digits: int) -> str | None:
    """Find the best value as it is shown, or None where there is nothing to compare."""
    candidates = [row.get(name) for method, row in table.rows.items() if method not in table.unranked]
    values = [value for value in candidates if value is not None and math.isfinite(value)]
    if better is None or len(values) < 2:
        return None
    return _score(min(values) if better == "lower" else max(values), digits)


def _view(row: ViewRow, error_limit: float) -> dict[str, Any]:
    """Paint the maps of one view; a kind of map without any known value is left out."""
    depth_bounds = shared_range(row.depth.values())
    strips = []
    if depth_bounds is not None:
        cells = {name: _map(values, depth_bounds, "depth", valid=usable(values)) for name, values in row.depth.items()}
        strips.append(_strip("depth", "Depth", cells, *_ends(depth_bounds)))
    if any(np.isfinite(values).any() for values in row.error.values()):
        cells = {
            name: _map(values, (0.0, error_limit), "error") | {"note": _mean_error(values)}
            for name, values in row.error.items()
        }
        strips.append(_strip("error", "Relative depth error", cells, "0", f"≥ {error_limit:.0%}"))
    confidence = {name: (values, shared_range([values])) for name, values in row.confidence.items()}
    if any(bounds is not None for _, bounds in confidence.values()):
        cells = {
            name: _map(values, bounds, "confidence", log=True)
            | {"note": "" if bounds is None else " to ".join(_ends(bounds))}
            for name, (values, bounds) in confidence.items()
        }
        strips.append(_strip("confidence", "Confidence (log)", cells, "low", "high"))
    photo = None
    if row.photo is not None:
        small = shrink(row.photo, PHOTO_SIDE)
        photo = {"uri": jpeg_uri(small), "width": small.shape[1], "height": small.shape[0]}
    # As many columns as the photo and its first strip need, or four where there is more to show.
    counts = [len(strip["cells"]) for strip in strips]
    columns = max([1 + sum(counts[:1]), *counts, min(1 + sum(counts), 4)])
    return {"name": row.name, "note": row.note, "photo": photo, "strips": strips, "columns": columns}


def _map(
    values: np.ndarray,
    bounds: tuple[float, float] | None,
    kind: Kind,
    *,
    log: bool = False,
    valid: np.ndarray | None = None,
) -> dict[str, Any]:
    height, width = values.shape
    uri = map_uri(map_levels(values, bounds, log=log, valid=valid), kind)
    return {"uri": uri, "width": width, "height": height, "note": ""}


def _strip(kind: Kind, title: str, cells: Mapping[str, dict[str, Any]], low: str, high: str) -> dict[str, Any]:
    return {"kind": kind, "title": title, "cells": dict(cells), "low": low, "high": high}


def _ends(bounds: tuple[float, float]) -> tuple[str, str]:
    return f"{bounds[0]:.3g}", f"{bounds[1]:.3g}"


def _mean_error(values: np.ndarray) -> str:
    known = np.isfinite(values)
    return f"mean {values[known].mean():.1%}" if known.any() else "no overlap"
