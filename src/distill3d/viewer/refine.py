"""The page about a refining run: what changed, depth before and after, curves of features and loss."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from distill3d.files import read_json
from distill3d.train.logs import read_metrics
from distill3d.train.refine_watch import MAPS
from distill3d.viewer.assemble import flat_facts
from distill3d.viewer.curves import curve_from_records
from distill3d.viewer.records import CurvePanel, FactGroup, Metric, ReportData, ScoreTable, ViewRow

METRICS = {
    "photo_depth_rel": Metric(label="Photos: Rel depth", better="lower", help="against the teacher, medians matched"),
    "photo_boundary_f1": Metric(label="Photos: boundary F1", better="higher", help="against the teacher, radius 1"),
    "replay_depth_rel": Metric(label="Scenes: Rel depth", better="lower", help="of held-out groups of views"),
    "replay_points_error": Metric(label="Scenes: points", better="lower", help="one scale, over the mean distance"),
    "replay_rotation_deg": Metric(label="Scenes: rotation", unit="°", better="lower", digits=1),
    "feature_norm": Metric(label="Feature norm", digits=2, help="mean length of the encoder's tokens"),
    "feature_norm_pre": Metric(label="before the last norm", digits=2, help="the same before the last LayerNorm"),
}
PANELS = (
    ("Loss", "loss", ("loss",), "train"),
    ("Feature norm before the last LayerNorm", "norm", ("feature_norm_pre", "feature_norm_pre_base"), "train"),
    ("Feature norm", "norm", ("feature_norm", "feature_norm_base"), "train"),
    ("Cosine to the features of the base", "cosine", ("feature_cosine",), "train"),
    ("Depth of held-out photos", "relative error", ("photo_depth_rel", "photo_depth_rel_base"), "validation"),
    ("Depth of held-out scenes", "relative error", ("replay_depth_rel", "replay_depth_rel_base"), "validation"),
)


def refine_report(run: Path, title: str | None = None) -> ReportData:
    """Gather what a run folder of `distill3d finetune` holds."""
    config = read_json(run / "config.json")
    summary = read_json(run / "summary.json") if (run / "summary.json").is_file() else {}
    scores: dict[str, float] = summary.get("validation", {})
    settings = config["settings"]
    table = ScoreTable(
        title="Before and after",
        rows={
            "frozen base": {name: scores.get(f"{name}_base") for name in METRICS if name in scores},
            "refined": {name: scores[name] for name in METRICS if name in scores},
        },
        metrics={name: metric for name, metric in METRICS.items() if name in scores},
        note="On photos and scenes that are not trained on.",
    )
    records = read_metrics(run)
    panels = []
    for heading, unit, keys, kind in PANELS:
        curves = [curve_from_records(records, key, kind=kind, name=key.replace("_", " ")) for key in keys]
        if curves := [curve for curve in curves if len(curve.steps)]:
            panels.append(CurvePanel(title=heading, curves=curves, y_label=unit))
    return ReportData(
        title=title or f"{settings['base']} refined: {run.name}",
        summary=SUMMARY,
        tables=(table,) if scores else (),
        views=_rows(run / "pictures" / MAPS),
        views_note="Each depth is multiplied by the median ratio to the teacher's.",
        panels=panels,
        facts=[
            FactGroup(title="Run", facts=_run_facts(config, summary)),
            FactGroup(title="Settings", facts=flat_facts(settings)),
            FactGroup(title="Licences", facts={str(i + 1): text for i, text in enumerate(config["data"]["licences"])}),
            FactGroup(title="Versions", facts={name: str(value) for name, value in config["versions"].items()}),
        ],
    )


SUMMARY = """\
Low-rank adapters in the image encoder learned depth from a monocular teacher on single photos; everything else of the \
network stayed frozen, and replayed views keep its geometry across views in place (Fin3R).\
"""


def _run_facts(config: dict[str, Any], summary: dict[str, Any]) -> dict[str, str]:
    base = config["base"]
    facts = {
        "base": f"{base['model']} from {base['source'] or 'fresh weights'}",
        "licence of the base": str(base["licence"]),
        "parameters": f"{config['parameters']:,}",
        "training": f"{summary['seconds']:.0f} s for {summary['steps']} steps" if summary else "not finished",
        "processes, threads": f"{config['processes']}, {config['threads']} on {config['device']}",
    }
    if summary.get("peak_memory_mb") is not None:
        facts["peak memory"] = f"{summary['peak_memory_mb'] / 1000:.2f} GB"
    return facts


def _rows(maps: Path) -> list[ViewRow]:
    if not maps.is_file():
        return []
    tensors = load_file(maps)
    rows = []
    for index in range(len(tensors) // 5):
        photo, teacher, before, after, valid = (
            tensors[f"{index}.{name}"] for name in ("photo", "teacher", "before", "after", "valid")
        )
        depth = {
            name: np.where(valid, side, np.nan)
            for name, side in (("teacher", teacher), ("before", before), ("after", after))
        }
        error = {name: np.abs(depth[name] - depth["teacher"]) / depth["teacher"] for name in ("before", "after")}
        pixels = (photo.transpose(1, 2, 0) * 255).round().astype(np.uint8)
        rows.append(ViewRow(name=f"photo {index}", photo=pixels, depth=depth, error=error))
    return rows
