"""The report of a benchmark: tables with published rows, maps with their errors, a cloud to turn, and curves."""

import logging
import math
from collections.abc import Mapping

import numpy as np
import torch

from distill3d.errors import DataError, GeometryError, OutputError
from distill3d.eval.benchmark import Benchmark, Sample, Scene
from distill3d.eval.frames import finished
from distill3d.eval.inputs import Size, input_size, resize_views
from distill3d.eval.results import BenchmarkResult
from distill3d.eval.scores import mean_of
from distill3d.eval.suite import Plan, stored_prediction
from distill3d.infer.reconstruct import keep_mask
from distill3d.types import Prediction, Reconstruction, Views, select_views
from distill3d.viewer.pointcloud import CloudScene, scene_from_reconstruction
from distill3d.viewer.records import Curve, CurvePanel, FactGroup, Metric, ReportData, ScoreTable, ViewRow
from distill3d.viewer.rows import ALIGNMENTS, view_rows

logger = logging.getLogger(__name__)

_LARGEST_ANGLE = 30
_MOST_VIEWS = 3


def benchmark_report(result: BenchmarkResult, plan: Plan, *, num_samples: int = 3) -> ReportData:
    """Gather what a result and its stored predictions can show; what is absent is left out.

    Args:
        result: of `suite.run_benchmark`.
        plan: what was run, for the scenes and the stored predictions.
        num_samples: samples to show with their maps, evenly chosen.
    """
    samples = [sample for sample in plan.samples() if sample.key not in result.skipped]
    step = max(1, len(samples) // max(1, num_samples))
    shown = samples[::step][:num_samples]
    views: list[ViewRow] = []
    cloud: CloudScene | None = None
    for sample in shown:
        scene = plan.benchmark.load(sample, plan.root, plan.mode)
        rows, made = _look(scene, sample, result, plan)
        views += rows
        cloud = cloud or made
    first = next(iter(result.methods))
    skipped = dict(list(result.skipped.items())[:20])
    return ReportData(
        title=plan.benchmark.title,
        subtitle=f"protocol {result.protocol}, {result.settings['num_samples']} samples",
        summary=f"Alignment: {result.settings['alignment']}." if result.settings["alignment"] else "",
        cloud=cloud,
        cloud_note=f"Sample {shown[0].key}, as {first} sees it." if cloud is not None and shown else "",
        tables=[main_table(result, plan.benchmark), *_group_tables(result, plan.benchmark)],
        views=views,
        views_note=ALIGNMENTS["view"] if views else "",
        panels=curve_panels(result),
        facts=[
            FactGroup(title="Settings", facts={key: _words(value) for key, value in result.settings.items()}),
            *([FactGroup(title="Not scored", facts=skipped)] if skipped else []),
        ],
    )


def _words(value: object) -> str:
    return ", ".join(f"{name} {item}" for name, item in value.items()) if isinstance(value, Mapping) else str(value)


def main_table(result: BenchmarkResult, benchmark: Benchmark) -> ScoreTable:
    """Ours, then what is published; those do not compete."""
    rows: dict[str, Mapping[str, float | None]] = dict(result.rows())
    published = {f"{row.method} (published)": row.values for row in benchmark.published}
    rows |= published
    metrics = {
        name: Metric(
            label=column.label,
            unit=column.unit,
            better="lower" if column.better == "lower" else "higher",
            digits=column.digits,
        )
        for name, column in benchmark.columns.items()
        if any(row.get(name) is not None for row in rows.values())
    }
    sources = ". ".join(dict.fromkeys(row.source for row in benchmark.published))
    return ScoreTable(
        title="Scores",
        rows={name: {metric: row.get(metric) for metric in metrics} for name, row in rows.items()},
        metrics=metrics,
        unranked=(*published, *(name for name in rows if name.startswith("truth"))),
        note=f"Published: {sources}." if sources else "",
    )


def _group_tables(result: BenchmarkResult, benchmark: Benchmark) -> list[ScoreTable]:
    """One table for each method that was scored on several sets, categories or kinds."""
    metrics = main_table(result, benchmark).metrics
    return [
        ScoreTable(
            title=f"{name}, each by itself",
            rows={
                group: {metric: None if math.isnan(found[metric]) else found[metric] for metric in metrics}
                for group, found in method.groups.items()
            },
            metrics=metrics,
            unranked=tuple(method.groups),
            rows_are="Group",
        )
        for name, method in result.methods.items()
        if 1 < len(method.groups) <= 60
    ]


def curve_panels(result: BenchmarkResult) -> list[CurvePanel]:
    """Share of pairs over the allowed error (the curve under which AUC is the area), and sparsification."""
    panels = []
    for title, key in (("Rotation of pairs", "rotation_deg"), ("Translation of pairs", "translation_deg")):
        curves = []
        for name, method in result.methods.items():
            errors = np.array([error for scores in method.samples.values() for error in scores.lists.get(key, ())])
            errors = errors[~np.isnan(errors)]
            if len(errors):
                allowed = np.linspace(0, _LARGEST_ANGLE, 121)
                share = np.searchsorted(np.sort(errors), allowed) / len(errors)
                curves.append(Curve(name=name, steps=allowed.tolist(), values=share.tolist()))
        if curves:
            panels.append(CurvePanel(title=title, curves=curves, x_label="allowed error, °", y_label="share of pairs"))
    for name, method in result.methods.items():
        curves = [
            Curve(name=words, steps=list(range(len(values))), values=values)
            for words, key in (("by its confidence", "sparsification"), ("by the true error", "oracle"))
            if (values := _mean_curve([scores.lists[key] for scores in method.samples.values() if key in scores.lists]))
        ]
        if curves:
            panels.append(
                CurvePanel(
                    title=f"Does confidence rank error? {name}",
                    curves=curves,
                    x_label="% of pixels left out",
                    y_label="error of the rest / of all",
                )
            )
    return panels


def _mean_curve(curves: list[tuple[float, ...]]) -> list[float]:
    return [mean_of(values) for values in zip(*curves, strict=True)] if curves else []


def _look(scene: Scene, sample: Sample, result: BenchmarkResult, plan: Plan) -> tuple[list[ViewRow], CloudScene | None]:
    """Maps of every method on the first views of a sample, and the first method's cloud."""
    predictions: dict[str, Prediction] = {}
    for name in result.methods:
        try:
            predictions[name] = finished(stored_prediction(plan, name, sample))
        except DataError as error:
            logger.warning("%s is not shown: %s", sample.key, error)
    if not predictions:
        return [], None
    whole = scene.views
    if any(_num_views(found) not in (None, whole.images.shape[1]) for found in predictions.values()):
        # The protocol chose among the views; only the first is known to be the same.
        whole = select_views(whole, [0])
        predictions = {name: select_views(found, [0]) for name, found in predictions.items()}
    count = min(_MOST_VIEWS, whole.images.shape[1])
    names = [f"{sample.key}, view {view}" for view in range(count)]
    size = _map_size(next(iter(predictions.values())), plan, scene)
    views = resize_views(whole, size)
    same = {name: found for name, found in predictions.items() if _map_size(found, plan, scene) == size}
    rows = view_rows(
        select_views(views, range(count)),
        {name: select_views(found, range(count)) for name, found in same.items()},
        names,
        align="view",
    )
    return rows, _cloud(views, next(iter(same.values())), sample)


def _num_views(prediction: Prediction) -> int | None:
    """How many views the maps of a prediction are about; None where it has no maps."""
    maps = (prediction.pointmap_camera, prediction.pointmap_world, prediction.depth)
    return next((found.shape[1] for found in maps if found is not None), None)


def _map_size(prediction: Prediction, plan: Plan, scene: Scene) -> Size:
    for maps in (prediction.pointmap_camera, prediction.pointmap_world, prediction.depth):
        if maps is not None:
            return maps.shape[2], maps.shape[3]
    return input_size((scene.views.images.shape[-2], scene.views.images.shape[-1]), plan.long_side, plan.multiple)


def _cloud(views: Views, prediction: Prediction, sample: Sample) -> CloudScene | None:
    if prediction.pointmap_world is None or prediction.confidence_world is None:
        return None
    shown = Views(images=views.images.float())
    try:
        keep, _ = keep_mask(prediction, shown, 20.0)
        if not bool(torch.as_tensor(keep).any()):
            return None
        names = tuple(f"{sample.key}, view {view}" for view in range(views.images.shape[1]))
        return scene_from_reconstruction(
            Reconstruction(views=shown, prediction=prediction, keep=keep, names=names), max_points=80_000
        )
    except (GeometryError, OutputError) as error:
        logger.warning("the cloud of %s is not shown: %s", sample.key, error)
        return None
