"""What a cache holds as a page: numbers, who made it, and the depth and confidence of some samples."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill3d.cache.reader import CachedSample, CacheReader
from distill3d.errors import CacheError
from distill3d.files import megabytes
from distill3d.viewer.records import FactGroup, KeyFigure, ReportData, ViewRow
from distill3d.viewer.rows import view_rows

MOST_VIEWS = 4
"""Of a sample on the page; they are spread over it."""


def cache_report(reader: CacheReader, *, samples: int = 6) -> ReportData:
    """The record of the page; samples are spread evenly over the keys, and one that is damaged says so.

    The share of usable pixels and the range of the confidences are those of the samples shown.
    """
    about = reader.describe()
    keys = reader.keys()
    chosen = [keys[int(place)] for place in np.linspace(0, len(keys) - 1, min(samples, len(keys)))] if keys else []
    rows: list[ViewRow] = []
    damaged: dict[str, str] = {}
    usable: list[float] = []
    for key in chosen:
        num_views = reader.shape(key)[0]
        views = sorted({int(view) for view in np.linspace(0, num_views - 1, min(MOST_VIEWS, num_views))})
        try:
            sample = reader.load(key, views=views)
        except CacheError as error:
            damaged[key] = str(error)
            continue
        usable.append(float(sample.valid.float().mean()))
        rows += _rows(sample, views)
    figures = [
        KeyFigure(label="Samples", value=str(about["samples"]), note=f"{about['views']} views"),
        KeyFigure(label="Size", value=megabytes(about["bytes"]), note=f"{megabytes(about['bytes_per_view'])} a view"),
        KeyFigure(label="Codec", value=about["codec"], note=_codec_note(about)),
        KeyFigure(label="Usable pixels", value=f"{np.mean(usable):.1%}" if usable else "–", note="of those shown"),
    ]
    groups = {"Cache": about, "Settings": _settings(reader)}
    facts = [FactGroup(title=title, facts=_texts(values)) for title, values in groups.items()]
    if damaged:
        facts.append(FactGroup(title="Damaged", facts=damaged))
    if missing := reader.failures():
        facts.append(FactGroup(title="Could not be made", facts={item["key"]: item["reason"] for item in missing[:20]}))
    return ReportData(
        title=f"Teacher cache of {about['teacher']}",
        subtitle=f"{about['samples']} samples, {about['views']} views of {', '.join(about['sizes']) or 'no size'}",
        key_figures=figures,
        views=rows,
        views_note="Depth is the z of the local map where the teacher gives no depth; hatched pixels are not usable.",
        facts=facts,
    )


def _rows(sample: CachedSample, views: Sequence[int]) -> list[ViewRow]:
    names = [f"{sample.key}, view {view}" for view in views]
    return view_rows(sample.views, {"teacher": sample.prediction}, names, align="none")


def _codec_note(about: dict[str, Any]) -> str:
    bound = about["codec_settings"].get("bound")
    return "float16, bit for bit" if bound is None else f"points within {bound:.3g} of their distance"


def _settings(reader: CacheReader) -> dict[str, Any]:
    header = reader.header
    return {
        "image fit": dict(header.image_fit),
        "seed": header.seed,
        "teacher": dict(header.teacher_settings),
        "run": dict(header.settings),
        "photos": header.images if header.photo_quality is None else f"jpeg, quality {header.photo_quality}",
    }


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {name.replace("_", " "): _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items() if item is not None) or "–"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "–"
    return "–" if value is None else str(value)
