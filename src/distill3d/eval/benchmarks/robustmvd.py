"""Multi-view depth after the robust MVD benchmark: the depth of a key view, from it and its sources.

Sets: KITTI (21 views), ScanNet (8), ETH3D (11), DTU (11); Tanks & Temples (11) has no loader here. The benchmark's own
samples are not part of this project: put `samples.json` beside the data, a list of {"scene": ..., "key": frame,
"sources": [frame, ...]}. Without it every scene gives one sample around its middle frame with the nearest others, and
the hash in the results tells.

One pass with all views is our default (`all`). The published choice of sources has names that end in `-quasi`: the key
with each source alone, then passes with the best 1, 2, ... of them; the best pass counts, which looks at the truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from distill3d.data.rows import ManifestRow
from distill3d.errors import DataError
from distill3d.eval.benchmark import Benchmark, Mode, PredictSome, Sample, SampleScores, Scene
from distill3d.eval.benchmarks._sequences import needs, sequences
from distill3d.eval.frames import confidence_maps, depth_maps, finished, load_views
from distill3d.eval.metrics.calibration import calibration
from distill3d.eval.metrics.key_view import KeyAlignment, align_key_view, key_view_scores
from distill3d.eval.scores import Column
from distill3d.files import read_json
from distill3d.types import Prediction

SAMPLES = "samples.json"
NUM_VIEWS: Mapping[str, int] = {"kitti": 21, "scannet1500": 8, "eth3d": 11, "dtu": 11, "bonn": 8, "sevenscenes": 8}
ALIGNMENTS: tuple[KeyAlignment, ...] = ("none", "median", "inverse")
Sources = Literal["all", "quasi"]
SOURCES: tuple[Sources, ...] = ("all", "quasi")

COLUMNS: Mapping[str, Column] = {
    "absrel": Column(label="rel", unit="%", better="lower", digits=2),
    "inliers103": Column(label="inliers 1.03", unit="%", better="higher", digits=2),
    "ause": Column(label="AUSE", unit="", better="lower"),
}


def _samples(dataset: str, root: Path) -> list[Sample]:
    found = sequences(dataset, root)
    path = root / SAMPLES
    if path.is_file():
        try:
            return [
                _sample(found.get(entry["scene"], ()), entry["scene"], [entry["key"], *entry["sources"]])
                for entry in read_json(path)
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a list of samples ({error}); see docs/evaluation.md.") from error
    samples = []
    for scene, rows in found.items():
        known = [row for row in rows if row.depth is not None]
        if known:
            key = known[len(known) // 2]
            others = sorted(
                (row for row in rows if row is not key), key=lambda row: (abs(row.frame - key.frame), row.frame)
            )
            frames = [key.frame, *(row.frame for row in others[: NUM_VIEWS[dataset] - 1])]
            samples.append(_sample(rows, scene, frames))
    return samples


def _sample(rows: Sequence[ManifestRow], scene: str, frames: Sequence[int]) -> Sample:
    known = {row.frame: row for row in rows}
    missing = [frame for frame in frames if frame not in known]
    if missing:
        raise DataError(f"scene {scene} has no frames {missing[:5]} that a sample names.")
    return Sample(key=f"{scene}-{frames[0]}", group=scene, rows=tuple(known[frame] for frame in frames))


def score_key(prediction: Prediction, scene: Scene, align: KeyAlignment) -> SampleScores:
    """Score the first view's depth."""
    assert scene.views.depth is not None
    truth = scene.views.depth[0, 0].double().numpy()
    source = prediction.pointmap_camera if prediction.pointmap_camera is not None else prediction.depth
    source = finished(prediction).depth if source is None else source
    maps = None if source is None else depth_maps(prediction, (source.shape[2], source.shape[3]), "nearest")
    if maps is None:
        return SampleScores(values=dict.fromkeys(COLUMNS, float("nan")))
    scores = key_view_scores(maps[0], truth, align)
    values = {"absrel": scores.absrel, "inliers103": scores.inliers103}
    confidence = confidence_maps(prediction, (truth.shape[0], truth.shape[1]))
    if confidence is not None:
        known = np.isfinite(truth) & (truth > 0)
        aligned = align_key_view(maps[0], truth, align)
        error = np.abs(aligned[known] - truth[known]) / truth[known]
        values["ause"] = calibration(error, -confidence[0][known]).ause
    return SampleScores(values=values)


def quasi_optimal(predict: PredictSome, scene: Scene, align: KeyAlignment) -> tuple[Prediction, list[int]]:
    """Find the sources that give the least error, as the published protocol does; this looks at the truth.

    Args:
        predict: called with indices of views, the key (0) first.
        scene: key and sources.
        align: of the scores.

    Returns:
        The best prediction, and the views it was made from.
    """
    count = scene.views.images.shape[1]

    def error(prediction: Prediction) -> float:
        found = score_key(prediction, scene, align).values["absrel"]
        return found if np.isfinite(found) else float("inf")

    alone = sorted(range(1, count), key=lambda source: (error(predict([0, source])), source))
    best: tuple[float, Prediction | None, list[int]] = (float("inf"), None, [])
    for number in range(1, count):
        views = [0, *alone[:number]]
        prediction = predict(views)
        found = error(prediction)
        if best[1] is None or found < best[0]:
            best = (found, prediction, views)
    if best[1] is None:
        raise DataError("a key view without sources has nothing to choose from")
    return best[1], best[2]


def _benchmark(dataset: str, align: KeyAlignment, sources: Sources) -> Benchmark:
    def list_samples(root: Path | None, limit: int | None) -> Sequence[Sample]:
        return _samples(dataset, needs(root))[:limit]

    def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
        # The sources need no depth; one that has none must not take the key's away.
        views = load_views(sample.rows, needs(root))
        if views.depth is None:
            own = load_views(sample.rows[:1], needs(root)).depth
            assert own is not None
            views = replace(views, depth=own.expand(1, len(sample.rows), *own.shape[2:]))
        return Scene(views=views)

    def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
        return score_key(prediction, scene, align)

    def choose(predict: PredictSome, scene: Scene) -> Prediction:
        return quasi_optimal(predict, scene, align)[0]

    quasi = sources == "quasi"
    return Benchmark(
        name=f"robustmvd-{dataset}-{align}" + ("-quasi" if quasi else ""),
        title=f"Robust multi-view depth, {dataset}, alignment {align}" + (", quasi-optimal sources" if quasi else ""),
        protocol=f"mvd.{dataset}.{sources}.{align}.v1",
        choose=choose if quasi else None,
        dataset=dataset,
        columns=COLUMNS,
        list_samples=list_samples,
        load=load,
        score=score,
        alignment=f"{align}; nearest-neighbour resizing, clip to [0.1, 100]",
    )


BENCHMARKS = tuple(
    _benchmark(dataset, align, sources) for dataset in NUM_VIEWS for align in ALIGNMENTS for sources in SOURCES
)
