"""From the folders of a run, an evaluation and a reconstruction to the record that a report shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill3d.data.table import Manifest
from distill3d.eval.run import BASELINES, EvaluatedGroups
from distill3d.eval.scores import COLUMNS, HeldoutScores
from distill3d.files import read_json
from distill3d.train.logs import read_metrics
from distill3d.types import Reconstruction
from distill3d.viewer.curves import curve_from_records
from distill3d.viewer.pointcloud import scene_from_reconstruction
from distill3d.viewer.records import CurvePanel, FactGroup, KeyFigure, Metric, ReportData, ScoreTable, ViewRow
from distill3d.viewer.rows import ALIGNMENTS, view_rows

HELP = {
    "depth_rel": "mean relative error of the depth, each view scaled by the ratio of the medians",
    "depth_delta1": "share of pixels whose depth is within 25 % of the truth",
    "points_error": "mean error of the joint point cloud over its mean distance, after one scale",
    "points_error_sim3": "the same after the best similarity",
    "rotation_to_first_deg": "median error of the rotation between view 0 and every other",
    "rotation_deg": "median error of the rotation between any two views",
    "translation_deg": "median error of the direction of the translation between any two views",
    "auc_30": "area under the share of pairs against the allowed error, up to 30 degrees",
}
_KEY_FIGURES = ("depth_rel", "depth_delta1", "rotation_to_first_deg", "points_error")


def assemble_report(
    title: str,
    *,
    run: Path | None = None,
    evaluation: EvaluatedGroups | None = None,
    manifest: Manifest | None = None,
    reconstruction: Reconstruction | None = None,
    subtitle: str = "",
    summary: str = "",
    num_groups: int = 2,
    facts: Sequence[FactGroup] = (),
) -> ReportData:
    """Gather whatever is there; the report leaves out the rest.

    Args:
        title: heading of the page.
        run: folder of a training run.
        evaluation: see `eval.run`; its first method is the student.
        manifest: of the evaluation's photos.
        reconstruction: for the point cloud.
        subtitle: beneath the title.
        summary: what was done and how it went.
        num_groups: held-out groups to show with their maps.
        facts: further lists of facts, after those of the run.
    """
    scores = evaluation.scores() if evaluation is not None else None
    views: list[ViewRow] = []
    if evaluation is not None and manifest is not None:
        views = _view_rows(evaluation, manifest, num_groups)
    return ReportData(
        title=title,
        subtitle=subtitle,
        summary=summary,
        key_figures=_key_figures(scores) if scores is not None else (),
        cloud=None if reconstruction is None else scene_from_reconstruction(reconstruction),
        cloud_note="" if reconstruction is None else _cloud_note(reconstruction),
        tables=() if scores is None else (score_table(scores),),
        views=views,
        views_note=ALIGNMENTS["view"] if views else "",
        panels=() if run is None else curve_panels(run),
        facts=[*(() if run is None else run_facts(run)), *facts],
    )


def score_table(scores: HeldoutScores) -> ScoreTable:
    """The table of an evaluation; a teacher does not compete with its student."""
    rows = scores.rows()
    shown = [name for name in COLUMNS if name != "missing" or any(row[name] for row in rows.values())]
    metrics = {
        name: Metric(
            label=COLUMNS[name].label,
            unit=COLUMNS[name].unit,
            better="lower" if COLUMNS[name].better == "lower" else "higher",
            digits=COLUMNS[name].digits,
            help=HELP.get(name, ""),
        )
        for name in shown
    }
    count = scores.settings["num_groups"]
    return ScoreTable(
        title="Held-out views",
        rows={method: {name: row[name] for name in shown} for method, row in rows.items()},
        metrics=metrics,
        unranked=[method for method in rows if "teacher" in method],
        note=f"{count} groups of views that no training has seen; protocol {scores.protocol}.",
    )


def curve_panels(run: Path) -> list[CurvePanel]:
    """Loss and validation curves of a run."""
    records = read_metrics(run)
    panels = []
    for panel_title, key, kinds in (
        ("Loss", "loss", ("train", "validation")),
        ("Depth against the teacher", "depth_rel", ("validation",)),
        ("Rotation against the teacher", "rotation_deg", ("validation",)),
    ):
        curves = [curve_from_records(records, key, kind=kind, name=kind) for kind in kinds]
        curves = [curve for curve in curves if len(curve.steps)]
        if curves:
            unit = {"depth_rel": "relative error", "rotation_deg": "degrees"}.get(key, key)
            panels.append(CurvePanel(title=panel_title, curves=curves, y_label=unit, log_y=key == "loss"))
    return panels


def run_facts(run: Path) -> list[FactGroup]:
    """What was trained, from what, how long, and under which licences."""
    config = read_json(run / "config.json")
    summary = read_json(run / "summary.json") if (run / "summary.json").is_file() else {}
    settings, header = config["settings"], config["cache"].get("header_fields", {})
    times = {
        "training": f"{summary['seconds']:.0f} s for {summary['steps']} steps" if summary else "not finished",
        "pace": f"{summary['samples_per_second']:.1f} samples/s" if summary else "",
        "processes, threads": f"{config['processes']}, {config['threads']} on {config['device']}",
    }
    return [
        FactGroup(
            title="Student",
            facts={
                "architecture": f"{settings['student']}, variant {settings['variant']}",
                "parameters": f"{config['parameters']:,}",
                "weights": f"{(run / 'student.safetensors').stat().st_size / 1e6:.1f} MB" if summary else "",
            },
        ),
        FactGroup(title="Times", facts={name: text for name, text in times.items() if text}),
        FactGroup(title="Settings", facts=flat_facts(settings)),
        FactGroup(
            title="Teacher and licences",
            facts={
                "teacher": str(header.get("teacher", "unknown")),
                "weights hash": str(header.get("weights_hash")),
                "licence of the labels": str(header.get("licence", "unknown")),
                "licences of the photos": ", ".join(header.get("settings", {}).get("data_licences", []))
                or "not stated",
            },
        ),
        FactGroup(title="Versions", facts={name: str(value) for name, value in config["versions"].items()}),
    ]


def _key_figures(scores: HeldoutScores) -> list[KeyFigure]:
    """The student's numbers, with the teacher's and the better baseline's as notes."""
    rows = scores.rows()
    student = next(iter(rows))
    figures = []
    for name in _KEY_FIGURES:
        value = rows[student].get(name)
        if value is None:
            continue
        column = COLUMNS[name]
        unit = "°" if column.unit.startswith("°") else ""
        notes = []
        for method, row in rows.items():
            found = row.get(name)
            if method != student and found is not None and (method == BASELINES[0] or "teacher" in method):
                notes.append(f"{method} {found:.{column.digits}f}{unit}")
        figures.append(KeyFigure(label=column.label, value=f"{value:.{column.digits}f}{unit}", note=", ".join(notes)))
    return figures


def _view_rows(evaluation: EvaluatedGroups, manifest: Manifest, num_groups: int) -> list[ViewRow]:
    """Some groups, evenly chosen, with the maps of the student and of what taught it."""
    methods = [name for name in evaluation.methods if name not in BASELINES]
    step = max(1, len(evaluation.groups) // max(1, num_groups))
    rows: list[ViewRow] = []
    for group in evaluation.groups[::step][:num_groups]:
        predictions = {name: evaluation.prediction(name, group) for name in methods}
        names = [f"{group.scene}, frame {frame}" for frame in group.frames]
        rows += view_rows(evaluation.views(manifest, group), predictions, names, align="view")
    return rows


def _cloud_note(reconstruction: Reconstruction) -> str:
    info = reconstruction.info
    percentile = info.get("confidence_percentile")
    left_out = "" if not percentile else f", without the {percentile:g} % it is least sure of"
    return f"{len(reconstruction.names)} photos, reconstructed by {info.get('model', 'the student')}{left_out}."


def flat_facts(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as lines of a list."""
    facts: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            facts |= flat_facts(value, f"{prefix}{name}.")
        else:
            facts[f"{prefix}{name}"] = str(value)
    return facts
