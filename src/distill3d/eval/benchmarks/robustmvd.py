"""Multi-view depth after the robust MVD benchmark: the depth of a key view, from it and its sources.

Five sets, each alone (`robustmvd-dtu-median`) or together (`robustmvd-median`: a folder with one folder for each set,
the mean of the sets' means): KITTI (21 views), ScanNet (8), ETH3D, DTU and Tanks & Temples (11). The benchmark's own
samples are not part of this project: put `samples.json` beside the data of a set, a list of {"scene": ..., "key":
frame, "sources": [frame, ...]}. Without it every scene gives one sample around its middle frame with the nearest
others, and the hash in the results tells. Tanks & Temples may lie in any layout that has cameras and depth, as
nerfstudio's.

One pass with all views is our default (`all`). The published choice of sources has names that end in `-quasi`: the key
with each source alone, then passes with the best 1, 2, ... of them; the best pass counts, which looks at the truth.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from distill3d.data.rows import ManifestRow
from distill3d.errors import DataError
from distill3d.eval.benchmark import Benchmark, Mode, PredictSome, Sample, SampleScores, Scene
from distill3d.eval.benchmarks._sequences import ANY_LAYOUT, needs, sequences
from distill3d.eval.frames import confidence_maps, depth_maps, finished, load_views
from distill3d.eval.inputs import Size
from distill3d.eval.metrics.calibration import calibration
from distill3d.eval.metrics.key_view import KeyAlignment, align_key_view, key_view_scores
from distill3d.eval.scores import Column
from distill3d.files import read_json
from distill3d.types import Prediction

logger = logging.getLogger(__name__)

SAMPLES = "samples.json"
ALL = "all sets"


@dataclass(frozen=True)
class KeyViewSet:
    """One of the five: its loader, how many views a sample has, and the size at which it is scored."""

    title: str
    dataset: str
    num_views: int
    size: Size | None = None
    """None is that of the photos."""


SETS: Mapping[str, KeyViewSet] = {
    "kitti": KeyViewSet("KITTI", "kitti", 21),
    # Photos are larger than the depth there.
    "scannet": KeyViewSet("ScanNet", "scannet1500", 8, (480, 640)),
    "eth3d": KeyViewSet("ETH3D", "eth3d", 11),
    "dtu": KeyViewSet("DTU", "dtu", 11),
    "tanks": KeyViewSet("Tanks & Temples", ANY_LAYOUT, 11),
}
ALIGNMENTS: tuple[KeyAlignment, ...] = ("none", "median", "inverse")
Sources = Literal["all", "quasi"]
SOURCES: tuple[Sources, ...] = ("all", "quasi")

COLUMNS: Mapping[str, Column] = {
    "absrel": Column(label="rel", unit="%", better="lower", digits=2),
    "inliers103": Column(label="inliers 1.03", unit="%", better="higher", digits=2),
    "ause": Column(label="AUSE", unit="", better="lower"),
}


def list_samples(name: str, root: Path, limit: int | None) -> list[Sample]:
    """The key views of one set, with their sources behind them.

    Raises:
        DataError: the folder holds no scene with depth, or its list of samples does not fit.
    """
    chosen = SETS[name]
    found = sequences(chosen.dataset, root)
    path = root / SAMPLES
    if path.is_file():
        try:
            samples = [
                _sample(name, found.get(entry["scene"], ()), entry["scene"], [entry["key"], *entry["sources"]])
                for entry in read_json(path)
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a list of samples ({error}); see docs/evaluation.md.") from error
        twice = [key for key, count in Counter(sample.key for sample in samples).items() if count > 1]
        if twice:
            raise DataError(f"{path} names a key view twice: {', '.join(twice[:5])}. Keep one of each.")
        return samples[:limit]
    samples = []
    for scene, rows in found.items():
        known = [row for row in rows if row.depth is not None]
        if known:
            key = known[len(known) // 2]
            others = sorted(
                (row for row in rows if row is not key), key=lambda row: (abs(row.frame - key.frame), row.frame)
            )
            frames = [key.frame, *(row.frame for row in others[: chosen.num_views - 1])]
            samples.append(_sample(name, rows, scene, frames))
    if not samples:
        raise DataError(f"{root} has no scene with depth.")
    return samples[:limit]


def list_all(root: Path, limit: int | None) -> list[Sample]:
    """The key views of all sets that lie below a folder; a limit is per set.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    present = [name for name in SETS if (root / name).is_dir()]
    if not present:
        raise DataError(f"{root} has none of the folders {', '.join(SETS)}; the mean is over these sets.")
    absent = [name for name in SETS if name not in present]
    if absent:
        logger.warning("%s has no %s: the mean is over %s", root, ", ".join(absent), ", ".join(present))
    return [
        replace(sample, key=f"{name}/{sample.key}")
        for name in present
        for sample in list_samples(name, root / name, limit)
    ]


def _sample(name: str, rows: Sequence[ManifestRow], scene: str, frames: Sequence[int]) -> Sample:
    known = {row.frame: row for row in rows}
    missing = [frame for frame in frames if frame not in known]
    if missing:
        raise DataError(f"scene {scene} has no frames {missing[:5]} that a sample names.")
    return Sample(key=f"{scene}-{frames[0]}", group=name, rows=tuple(known[frame] for frame in frames))


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


def load(sample: Sample, root: Path) -> Scene:
    """Read a key view and its sources; the sources need no depth."""
    size = SETS[sample.group].size
    views = load_views(sample.rows, root, size)
    if views.depth is None:  # a source that has none must not take the key's away
        own = load_views(sample.rows[:1], root, size).depth
        assert own is not None
        views = replace(views, depth=own.expand(1, len(sample.rows), *own.shape[2:]))
    return Scene(views=views)


def _benchmark(name: str, align: KeyAlignment, sources: Sources) -> Benchmark:
    every = name == ALL

    def listed(root: Path | None, limit: int | None) -> Sequence[Sample]:
        return list_all(needs(root), limit) if every else list_samples(name, needs(root), limit)

    def loaded(sample: Sample, root: Path | None, mode: Mode) -> Scene:
        return load(sample, needs(root) / sample.group if every else needs(root))

    def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
        return score_key(prediction, scene, align)

    def choose(predict: PredictSome, scene: Scene) -> Prediction:
        return quasi_optimal(predict, scene, align)[0]

    quasi = sources == "quasi"
    title = ALL if every else SETS[name].title
    short = "" if every else f"-{name}"
    return Benchmark(
        name=f"robustmvd{short}-{align}" + ("-quasi" if quasi else ""),
        title=f"Robust multi-view depth, {title}, alignment {align}" + (", quasi-optimal sources" if quasi else ""),
        protocol=f"mvd.{'mean' if every else name}.{sources}.{align}.v1",
        choose=choose if quasi else None,
        dataset=ALL if every else SETS[name].dataset,
        columns=COLUMNS,
        list_samples=listed,
        load=loaded,
        score=score,
        average="groups",
        alignment=f"{align}; nearest-neighbour resizing, clip to [0.1, 100]",
    )


BENCHMARKS = tuple(
    _benchmark(name, align, sources) for name in (ALL, *SETS) for align in ALIGNMENTS for sources in SOURCES
)
