"""Depth of single photos after the ratio of (lower) medians, as CUT3R, MonST3R and Pi3 report it.

Not to be confused with `monocular`, which has data sets of the same names and another alignment. Averages over photos
are weighted by valid pixels. The truth ends at 70 for Sintel (predictions are clipped there too) and Bonn.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from distill3d.eval.benchmark import Benchmark, Mode, Sample, SampleScores, Scene
from distill3d.eval.benchmarks._sequences import needs, sequences
from distill3d.eval.benchmarks.video import DEPTH_COLUMNS, SETS
from distill3d.eval.frames import depth_maps, load_views
from distill3d.eval.metrics.depth import depth_scores
from distill3d.types import Prediction

_LIMITS = {"sintel": (70.0, 70.0), "bonn": (70.0, None), "kitti": (None, None), "nyuv2": (None, None)}


def _benchmark(name: str, max_depth: float | None, clip: float | None) -> Benchmark:
    chosen = SETS.get(name)

    def list_samples(root: Path | None, limit: int | None) -> Sequence[Sample]:
        found = sequences(name, needs(root))
        samples = []
        for scene, rows in found.items():
            if chosen is not None and not chosen.takes(scene):
                continue
            frames = rows if chosen is None else chosen.frames(rows)
            tested = [row for row in frames if row.split in ("", "test", "val")]
            samples += [Sample(key=f"{scene}-{row.frame}", group=scene, rows=(row,)) for row in tested or frames]
        return samples[:limit]

    def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
        return Scene(views=load_views(sample.rows, needs(root)))

    def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
        assert scene.views.depth is not None
        truth = scene.views.depth[0].double().numpy()
        size = (truth.shape[1], truth.shape[2])
        depth = depth_maps(prediction, size, "bicubic")
        if depth is None:
            return SampleScores(values=dict.fromkeys(DEPTH_COLUMNS, math.nan), weight=0.0)
        scores = depth_scores(depth, truth, align="median", max_depth=max_depth, clip=clip)
        return SampleScores(
            values={metric: float(getattr(scores, metric)) for metric in DEPTH_COLUMNS}, weight=float(scores.num_pixels)
        )

    return Benchmark(
        name=f"mono-median-{name}",
        title=f"Single photos, {name}, ratio of medians",
        protocol=f"mono.median.{name}.v1",
        dataset=name,
        columns=DEPTH_COLUMNS,
        list_samples=list_samples,
        load=load,
        score=score,
        average="weighted",
        alignment="ratio of lower medians of each photo",
        long_side=512,
    )


BENCHMARKS = tuple(_benchmark(name, *limits) for name, limits in _LIMITS.items())
