"""The Distill3R paper's view-by-view evaluation, as we define it: none is published.

Every view alone. The truth is its depth unprojected in its own camera; Umeyama over the valid pixels gives the scale
(true size / predicted size) and aligns the local map. Accuracy and completeness are median nearest distances in metres,
times 100; the mean over views, then over sequences. `scale` is the mean over views, in millimetres per unit for DTU;
`scale_spread`, exp(mean |log s|), cannot fall below 1, unlike the published column.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from distill3d.data.rows import ManifestRow
from distill3d.eval.benchmark import Benchmark, Mode, Published, Sample, SampleScores, Scene
from distill3d.eval.benchmarks._sequences import listed, needs, one_per_scene, sequences
from distill3d.eval.frames import load_views, local_maps
from distill3d.eval.inputs import resize_like_pi3
from distill3d.eval.metrics.points import cloud_scores, fit_similarity
from distill3d.eval.scores import Column, mean_of
from distill3d.geometry.cameras import unproject_depth
from distill3d.types import Prediction

COLUMNS: Mapping[str, Column] = {
    "accuracy": Column(label="accuracy", unit="median x100", better="lower", digits=2),
    "completeness": Column(label="completeness", unit="median x100", better="lower", digits=2),
    "scale": Column(label="scale", unit="", better="lower", digits=2),
    "scale_spread": Column(label="scale", unit="exp mean abs log", better="lower", digits=2),
}


def per_view(
    dataset: str,
    title: str,
    *,
    stride: int,
    choose: Callable[[dict[str, tuple[ManifestRow, ...]]], dict[str, tuple[ManifestRow, ...]]],
    scale_unit: float = 1.0,
    published: tuple[Published, ...] = (),
) -> Benchmark:
    """The evaluation on one data set; see above."""

    def list_samples(root: Path | None, limit: int | None) -> Sequence[Sample]:
        folder = needs(root)
        found = choose(sequences(dataset, folder))
        return one_per_scene({scene: listed(rows, folder, stride) for scene, rows in found.items()})[:limit]

    def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
        size, _ = resize_like_pi3(np.eye(3), (sample.rows[0].height, sample.rows[0].width))
        return Scene(views=load_views(sample.rows, needs(root), size))

    return Benchmark(
        name=f"{dataset}-per-view",
        title=title,
        protocol=f"recon.per-view.{dataset}.v1",
        dataset=dataset,
        columns=COLUMNS,
        list_samples=list_samples,
        load=load,
        score=lambda prediction, scene, sample, mode: score(prediction, scene, scale_unit),
        alignment="Umeyama of each view's local map; no ICP; our own definition",
        published=published,
    )


def score(prediction: Prediction, scene: Scene, scale_unit: float = 1.0) -> SampleScores:
    """Score the local map of every view of one sequence."""
    views = scene.views
    assert views.depth is not None
    assert views.intrinsics is not None
    valid = (torch.isfinite(views.depth[0]) & (views.depth[0] > 1e-4)).numpy()
    truth = unproject_depth(torch.nan_to_num(views.depth[0]).double(), views.intrinsics[0].double()).numpy()
    local = local_maps(prediction, (truth.shape[1], truth.shape[2]), "bilinear")
    if local is None:
        return SampleScores(values=dict.fromkeys(COLUMNS, math.nan))
    scales, accuracy, completeness = [], [], []
    for ours, true, known in zip(local, truth, valid, strict=True):
        use = known & np.isfinite(ours).all(axis=-1)
        if use.sum() < 3 or not np.ptp(ours[use], axis=0).any():  # all in one place have no size
            continue
        fit = fit_similarity(ours[use], true[use])
        clouds = cloud_scores(fit.apply(torch.from_numpy(ours[use])).numpy(), true[known])
        scales.append(float(fit.scale) * scale_unit)
        accuracy.append(100 * clouds.accuracy_median)
        completeness.append(100 * clouds.completeness_median)
    logs = [abs(math.log(scale)) for scale in scales if scale > 0]
    return SampleScores(
        values={
            "accuracy": mean_of(accuracy),
            "completeness": mean_of(completeness),
            "scale": mean_of(scales),
            "scale_spread": math.exp(mean_of(logs)) if logs else math.nan,
        }
    )
