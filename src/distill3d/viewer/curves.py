"""Loss and validation curves as inline SVG that follows the page's colours."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup, escape

from distill3d.viewer.records import Curve, CurvePanel

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
NUM_COLORS = 6
MAX_POINTS = 500


def curve_from_records(
    records: Iterable[Mapping[str, Any]], key: str, *, kind: str | None = None, name: str = "", x: str = "step"
) -> Curve:
    """Pick one number over steps from the records of a `metrics.jsonl`, those of one `kind` or all.

    Records without the number are passed over; a null counts as NaN.
    """
    chosen = [
        record for record in records if key in record and x in record and (kind is None or record.get("kind") == kind)
    ]
    values = [math.nan if record[key] is None else float(record[key]) for record in chosen]
    return Curve(name=name or key, steps=[float(record[x]) for record in chosen], values=values)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Choose round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Choose powers of ten within [low, high], with 2s and 5s where those are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [f * 10.0**d for d in decades for f in factors if low * 0.999 <= f * 10.0**d <= high * 1.001]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 6)]
    return ticks(low, high, 4)


def number(value: float) -> str:
    """Write a number shortly: 12k, 0.05, 1e-05."""
    if abs(value) >= 10_000 and abs(value) < 1e7 and value % 100 == 0:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def thin(
    steps: Float[np.ndarray, " points"], values: Float[np.ndarray, " points"], limit: int = MAX_POINTS
) -> tuple[Float[np.ndarray, " kept"], Float[np.ndarray, " kept"]]:
    """Average neighbours of a long curve until at most `limit` points are left; NaN counts as no value."""
    if len(steps) <= limit:
        return steps, values
    groups = np.array_split(np.arange(len(steps)), limit)
    known = np.isfinite(values)
    means = [float(values[group][known[group]].mean()) if known[group].any() else math.nan for group in groups]
    return np.array([steps[group].mean() for group in groups]), np.array(means)


def draw_panel(panel: CurvePanel) -> Markup | None:
    """Draw a panel as one `<figure>`; None where no curve has a finite point."""
    lines: list[tuple[str, np.ndarray, np.ndarray]] = []
    for curve in panel.curves:
        steps, values = np.asarray(curve.steps, dtype=np.float64), np.asarray(curve.values, dtype=np.float64)
        values = np.where(np.isfinite(values), values, np.nan)
        known = np.isfinite(steps)
        if (known & np.isfinite(values)).any():
            lines.append((curve.name, *thin(steps[known], values[known])))
    if not lines:
        return None
    pooled = np.concatenate([values[np.isfinite(values)] for _, _, values in lines])
    log = panel.log_y and bool((pooled > 0).all())
    x_low, x_high = _widen(min(s.min() for _, s, _ in lines), max(s.max() for _, s, _ in lines), 0)
    y_low, y_high = float(pooled.min()), float(pooled.max())
    y_low, y_high = (y_low / 1.15, y_high * 1.15) if log else _widen(y_low, y_high, 0.05)

    def at_x(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        share = math.log(y / y_low) / math.log(y_high / y_low) if log else (y - y_low) / (y_high - y_low)
        return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

    parts = [_axes(panel, at_x, at_y, (x_low, x_high), log_ticks(y_low, y_high) if log else ticks(y_low, y_high))]
    series, legend = [], []
    for index, (name, steps, values) in enumerate(lines):
        color = f"series-{index % NUM_COLORS}"
        xs, ys = [at_x(x) for x in steps], [at_y(y) if math.isfinite(y) else math.nan for y in values]
        parts.append(_polyline(xs, ys, color))
        series.append({"x": _rounded(xs), "steps": _rounded(steps), "values": _rounded(values), "y": _rounded(ys)})
        last = values[np.isfinite(values)][-1]
        legend.append(
            f'<li class="{color}"><span class="swatch"></span>{escape(name)} <b data-value="">{number(last)}</b></li>'
        )
    alt = f"{panel.title}: {', '.join(name for name, _, _ in lines)} over {panel.x_label}"
    return Markup(
        f'<figure class="panel" data-series="{escape(json.dumps(series))}">'
        f'<figcaption>{escape(panel.title)} <small data-step=""></small></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">{"".join(parts)}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>'
        f'<ul class="legend">{"".join(legend)}</ul></figure>'
    )


def _axes(panel: CurvePanel, at_x: Any, at_y: Any, x_range: tuple[float, float], y_ticks: Sequence[float]) -> str:
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at_y(y):.1f}" y2="{at_y(y):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{number(y)}</text>')
    for x in ticks(*x_range, 5):
        anchor = "end" if at_x(x) > right - 14 else "middle"
        parts.append(f'<text x="{at_x(x):.1f}" y="{floor + 17}" text-anchor="{anchor}">{number(x)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(panel.x_label)}</text>')
    if panel.y_label:
        place = f"{12},{(TOP + floor) / 2}"
        parts.append(
            f'<text transform="translate({place}) rotate(-90)" text-anchor="middle">{escape(panel.y_label)}</text>'
        )
    return "".join(parts)


def _polyline(xs: Sequence[float], ys: Sequence[float], color: str) -> str:
    """Draw runs of finite points as lines, and a lone point as a dot."""
    parts, run = [], list[str]()
    for x, y in [*zip(xs, ys, strict=True), (math.nan, math.nan)]:
        if math.isfinite(y):
            run.append(f"{x:.1f},{y:.1f}")
            continue
        if len(run) == 1:
            cx, cy = run[0].split(",")
            parts.append(f'<circle class="{color}" cx="{cx}" cy="{cy}" r="3"/>')
        elif run:
            parts.append(f'<polyline class="{color}" points="{" ".join(run)}"/>')
        run = []
    return "".join(parts)


def _widen(low: float, high: float, share: float) -> tuple[float, float]:
    """Give an interval some air, and a width where it has none."""
    margin = (high - low) * share if high > low else max(abs(low) * 0.1, 0.5)
    return float(low - margin), float(high + margin)


def _rounded(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]
