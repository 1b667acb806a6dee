"""What a report can show: frozen records of plain numbers, texts and numpy arrays, all optional."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from distill3d.viewer.pointcloud import CloudScene


@dataclass(frozen=True, kw_only=True)
class KeyFigure:
    """One number that a reader should take home."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a column of scores is headed and read."""

    label: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    digits: int = 3
    help: str = ""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Methods against metrics; the best value of each column is marked."""

    title: str
    rows: Mapping[str, Mapping[str, float | None]]
    """Method -> metric -> value; what a method lacks shows as a dash."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Metric -> its heading. Those not named here get one from their name; all that occur in `rows` are shown."""
    unranked: Sequence[str] = ()
    """Methods that do not compete for the best value: a teacher, a bound."""
    rows_are: str = "Method"
    """What the rows stand for."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ViewRow:
    """One photo and the maps that each source (truth, teacher, student) has of it."""

    name: str
    photo: UInt8[np.ndarray, "_ _ 3"] | None = None
    depth: Mapping[str, Float[np.ndarray, "_ _"]] = field(default_factory=dict)
    """Source -> z-depth, already aligned; one colour range per view for all sources."""
    error: Mapping[str, Float[np.ndarray, "_ _"]] = field(default_factory=dict)
    """Source -> relative depth error; one colour range for the whole report."""
    confidence: Mapping[str, Float[np.ndarray, "_ _"]] = field(default_factory=dict)
    """Source -> confidence as trained; log colours, a range per source, because their scales are not comparable."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line: values over steps, NaN where there is a gap."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    """Lines that share axes."""

    title: str
    curves: Sequence[Curve]
    x_label: str = "step"
    y_label: str = ""
    log_y: bool = False
    """Honoured where all values are positive."""


@dataclass(frozen=True, kw_only=True)
class FactGroup:
    """A titled list of facts: sizes, times, settings, versions, licences. A value that is a URL becomes a link."""

    title: str
    facts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that a report shows; a section without data is left out."""

    title: str
    subtitle: str = ""
    summary: str = ""
    """What was done and how it went, in a sentence or three; blank lines part paragraphs."""
    key_figures: Sequence[KeyFigure] = ()
    cloud: CloudScene | None = None
    cloud_note: str = ""
    tables: Sequence[ScoreTable] = ()
    views: Sequence[ViewRow] = ()
    views_note: str = ""
    """How the maps were aligned before they were compared."""
    error_limit: float = 0.25
    """Relative depth error at the bright end of the error maps."""
    panels: Sequence[CurvePanel] = ()
    curves_note: str = ""
    facts: Sequence[FactGroup] = ()


# Substrings of metric names, first match wins: label, unit, better, digits.
_KNOWN: tuple[tuple[str, Metric], ...] = (
    ("delta", Metric(label="δ1 depth", better="higher", help="share of pixels within 25 % of the true depth")),
    ("rel", Metric(label="Rel depth", better="lower", help="mean relative depth error")),
    ("auc", Metric(label="AUC pose", better="higher", help="area under the pose accuracy curve")),
    ("rot", Metric(label="Rotation", unit="°", better="lower", digits=1, help="relative rotation error")),
    (
        "trans",
        Metric(label="Translation", unit="°", better="lower", digits=1, help="direction of relative translation"),
    ),
    ("accuracy", Metric(label="Accuracy", better="lower", help="distance from reconstruction to truth")),
    ("completeness", Metric(label="Completeness", better="lower", help="distance from truth to reconstruction")),
    ("point", Metric(label="Points", better="lower", help="pointmap error after similarity")),
    ("second", Metric(label="Time", unit="s", better="lower", digits=1)),
)


def metric_for(name: str) -> Metric:
    """Guess how to show a metric from its name; an unknown one shows under its own name and is not ranked."""
    plain = name.lower()
    return next((metric for key, metric in _KNOWN if key in plain), Metric(label=name.replace("_", " ")))
