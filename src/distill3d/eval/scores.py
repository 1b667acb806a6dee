"""The records of an evaluation, how they are averaged, and how they become JSON and a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from distill3d.errors import DataError
from distill3d.eval.metrics.poses import auc, recall, worst_angle
from distill3d.files import read_json, write_json

PROTOCOL = "heldout.v1"


@dataclass(frozen=True, kw_only=True)
class Column:
    """How a metric is headed and read."""

    label: str
    unit: str
    better: str
    digits: int = 3


COLUMNS: Mapping[str, Column] = {
    "depth_rel": Column(label="Rel", unit="", better="lower"),
    "depth_delta1": Column(label="δ1", unit="", better="higher"),
    "points_error": Column(label="points, one scale", unit="of distance", better="lower"),
    "points_error_sim3": Column(label="points, similarity", unit="of distance", better="lower"),
    "accuracy": Column(label="accuracy", unit="of distance", better="lower"),
    "completeness": Column(label="completeness", unit="of distance", better="lower"),
    "rotation_to_first_deg": Column(label="rotation to view 0", unit="°, median", better="lower", digits=1),
    "rotation_deg": Column(label="rotation", unit="°, median", better="lower", digits=1),
    "translation_deg": Column(label="translation", unit="°, median", better="lower", digits=1),
    "rra_15": Column(label="RRA@15", unit="", better="higher"),
    "rta_15": Column(label="RTA@15", unit="", better="higher"),
    "auc_5": Column(label="AUC@5", unit="", better="higher"),
    "auc_10": Column(label="AUC@10", unit="", better="higher"),
    "auc_20": Column(label="AUC@20", unit="", better="higher"),
    "auc_30": Column(label="AUC@30", unit="", better="higher"),
    "missing": Column(label="missing", unit="", better="lower"),
}
"""Every metric, in the order of the table."""
GROUP_MEANS = (
    "depth_rel", "depth_delta1", "points_error", "points_error_sim3", "accuracy", "completeness", "missing",
)  # fmt: skip
"""Metrics that are averaged over groups; the others are taken over the pooled pairs."""


@dataclass(frozen=True, kw_only=True)
class GroupScores:
    """One method on one group."""

    num_views: int
    values: Mapping[str, float]
    """Those of `GROUP_MEANS`; NaN where a metric has no meaning."""
    rotation_deg: tuple[float, ...]
    """Error of every pair, (0, 1), (0, 2) ... (1, 2) ...; empty if there are no poses."""
    translation_deg: tuple[float, ...]
    """The same for the directions of the translations; NaN where the true cameras stand at one place."""


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """One method on all groups."""

    values: Mapping[str, float]
    """Metric -> value, for all of `COLUMNS`; NaN where not one group has it."""
    num_nan: Mapping[str, int]
    """Metric -> groups (for pose metrics: pairs) that were left out because they had no value."""
    groups: Mapping[str, GroupScores]
    """By the key of the group."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the predictions were made with."""


@dataclass(frozen=True, kw_only=True)
class HeldoutScores:
    """All methods on the same held-out groups."""

    protocol: str
    settings: Mapping[str, Any]
    """Canvas and fit, number and hash of the groups, points per cloud."""
    methods: Mapping[str, MethodScores]
    skipped: Mapping[str, str]
    """Group key -> why it was not scored."""

    def rows(self) -> dict[str, dict[str, float | None]]:
        """Give method -> metric -> value, None for NaN."""
        return {
            name: {metric: None if math.isnan(value) else value for metric, value in method.values.items()}
            for name, method in self.methods.items()
        }

    def markdown(self) -> str:
        """Write the table: a row per method, the protocol and the counts beneath."""
        heads = [heading(column) for column in COLUMNS.values()]
        lines = [
            "| method | " + " | ".join(heads) + " |",
            "|---|" + "---:|" * len(heads),
        ]
        for name, method in self.methods.items():
            cells = [table_cell(method.values[metric], column.digits) for metric, column in COLUMNS.items()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        note = f"Protocol {self.protocol}: {self.settings['num_groups']} held-out groups"
        if self.skipped:
            note += f"; {len(self.skipped)} more were not scored ({common_reason(self.skipped)})"
        return "\n".join([*lines, "", note + "."]) + "\n"

    def latex(self) -> str:
        """The same as a booktabs table."""
        return latex_table(
            f"protocol {self.protocol}, {self.settings['num_groups']} held-out groups",
            [heading(column) for column in COLUMNS.values()],
            {
                name: [table_cell(method.values[metric], column.digits) for metric, column in COLUMNS.items()]
                for name, method in self.methods.items()
            },
        )

    def save(self, path: str | Path) -> None:
        """Write everything as JSON; the same scores give the same bytes.

        Raises:
            OutputError: the place takes no file.
        """
        methods = {
            name: {
                "protocol": self.protocol,
                "settings": dict(method.settings),
                "values": jsonable(method.values),
                "num_nan": dict(method.num_nan),
                "groups": {
                    key: {
                        "num_views": group.num_views,
                        "values": jsonable(group.values),
                        "rotation_deg": [or_none(value) for value in group.rotation_deg],
                        "translation_deg": [or_none(value) for value in group.translation_deg],
                    }
                    for key, group in method.groups.items()
                },
            }
            for name, method in self.methods.items()
        }
        write_json(
            path,
            {
                "protocol": self.protocol,
                "settings": dict(self.settings),
                "order": list(self.methods),
                "methods": methods,
                "skipped": dict(self.skipped),
            },
        )


def load_scores(path: str | Path) -> HeldoutScores:
    """Read what `HeldoutScores.save` wrote.

    Raises:
        DataError: the file is absent, damaged or of another protocol.
    """
    try:
        found = read_json(path)
        if found["protocol"] != PROTOCOL and not found["protocol"].startswith("agreement"):
            raise DataError(f"{path} has scores of protocol {found['protocol']}, this version reads {PROTOCOL}")
        methods = {name: _method_from_json(found["methods"][name]) for name in found["order"]}
        return HeldoutScores(
            protocol=found["protocol"], settings=found["settings"], methods=methods, skipped=found["skipped"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no scores of ours ({error}); score the predictions again") from error


def aggregate(groups: Mapping[str, GroupScores], settings: Mapping[str, Any]) -> MethodScores:
    """Average over groups, and take the pose metrics over all pairs; from the stored values alone, NaN left out."""
    values: dict[str, float] = {}
    num_nan: dict[str, int] = {}
    for name in GROUP_MEANS:
        of_groups = [group.values[name] for group in groups.values()]
        values[name] = stored(mean_of(of_groups))
        num_nan[name] = sum(math.isnan(value) for value in of_groups)
    rotation = np.array([angle for group in groups.values() for angle in group.rotation_deg])
    translation = np.array([angle for group in groups.values() for angle in group.translation_deg])
    first = np.array([angle for group in groups.values() for angle in group.rotation_deg[: group.num_views - 1]])
    worst = worst_angle(rotation, translation)
    pooled = {
        "rotation_to_first_deg": (first, _median(first)),
        "rotation_deg": (rotation, _median(rotation)),
        "translation_deg": (translation, _median(translation)),
        "rra_15": (rotation, recall(rotation, 15)),
        "rta_15": (translation, recall(translation, 15)),
        **{f"auc_{threshold}": (worst, auc(worst, threshold)) for threshold in (5, 10, 20, 30)},
    }
    for name, (errors, value) in pooled.items():
        values[name] = stored(value)
        num_nan[name] = int(np.isnan(errors).sum())
    ordered = {name: values[name] for name in COLUMNS}
    return MethodScores(values=ordered, num_nan=num_nan, groups=dict(groups), settings=dict(settings))


def mean_of(values: Sequence[float]) -> float:
    """Average what is not NaN; NaN if nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def stored(value: float) -> float:
    """Round to nine digits: what is aggregated is what the file says, and the last bits of a library do not show."""
    return float(f"{float(value):.9g}")


def _median(values: Float[np.ndarray, " count"]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else math.nan


def or_none(value: float) -> float | None:
    """The value as JSON can hold it: None for what is not finite."""
    return value if math.isfinite(value) else None


def jsonable(values: Mapping[str, float]) -> dict[str, float | None]:
    """Values as JSON can hold them."""
    return {name: or_none(value) for name, value in values.items()}


def _method_from_json(found: Mapping[str, Any]) -> MethodScores:
    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    groups = {
        key: GroupScores(
            num_views=group["num_views"],
            values={name: number(value) for name, value in group["values"].items()},
            rotation_deg=tuple(number(value) for value in group["rotation_deg"]),
            translation_deg=tuple(number(value) for value in group["translation_deg"]),
        )
        for key, group in found["groups"].items()
    }
    values = {name: number(found["values"][name]) for name in COLUMNS}
    return MethodScores(values=values, num_nan=found["num_nan"], groups=groups, settings=found["settings"])


def heading(column: Column) -> str:
    """The head of a column: label, unit, and an arrow to where the better values are."""
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.label}{unit} {'↓' if column.better == 'lower' else '↑'}"


def table_cell(value: float, digits: int) -> str:
    """A value as a table shows it; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def common_reason(skipped: Mapping[str, str]) -> str:
    """Give the reason that is named most."""
    reasons = list(skipped.values())
    return max(sorted(set(reasons)), key=reasons.count)


def latex_table(
    comment: str,
    heads: Sequence[str],
    rows: Mapping[str, Sequence[str]],
    *,
    published: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """A booktabs table of finished cells; published rows in italics below a rule."""
    lines = [
        f"% {comment}",
        r"\begin{tabular}{l" + "r" * len(heads) + "}",
        r"\toprule",
        " & ".join(["method", *map(_tex, heads)]) + r" \\",
        r"\midrule",
        *(" & ".join([_tex(name), *cells]) + r" \\" for name, cells in rows.items()),
    ]
    if published:
        lines.append(r"\midrule")
        lines += [rf"\textit{{{_tex(name)} (published)}} & {' & '.join(cells)} \\" for name, cells in published.items()]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash{}"), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#"),
                           ("$", r"\$"), ("↓", r"$\downarrow$"), ("↑", r"$\uparrow$"), ("δ", r"$\delta$"),
                           ("°", r"$^\circ$")):  # fmt: skip
        text = text.replace(plain, escaped)
    return text
