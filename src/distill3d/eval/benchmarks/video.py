"""Video depth and camera trajectories (MonST3R, CUT3R, Pi3): Sintel, Bonn, KITTI, TUM-dynamics, ScanNet.

Depth: all frames of a sequence are stacked and aligned together; averages are weighted by valid pixels. Four alignments
give four benchmarks of each set: median, scale, scale&shift and none (metric). Trajectories: positions aligned by a
similarity; ATE and RPE are root mean squares; the mean over sequences. A sequence without poses counts as failed and is
listed, not dropped.

`compat` repeats two quirks: scale&shift is Adam with steps of 1e-4, usually not converged (clean: the minimum), and the
reweighted scale is the reference's ten steps (clean: the same; it has no better definition).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill3d.data.rows import ManifestRow
from distill3d.errors import DataError
from distill3d.eval.benchmark import Benchmark, Mode, Sample, SampleScores, Scene
from distill3d.eval.benchmarks._poses import predicted_poses
from distill3d.eval.benchmarks._sequences import needs, sequences
from distill3d.eval.frames import depth_maps, load_views
from distill3d.eval.metrics.depth import DepthAlignment, depth_scores
from distill3d.eval.metrics.trajectory import trajectory_scores
from distill3d.eval.scores import Column
from distill3d.types import Prediction

SINTEL = (
    "alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5", "market_6", "shaman_3",
    "sleeping_1", "sleeping_2", "temple_2", "temple_3",
)  # fmt: skip
BONN = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")

DEPTH_COLUMNS: Mapping[str, Column] = {
    "abs_rel": Column(label="Abs Rel", unit="", better="lower"),
    "sq_rel": Column(label="Sq Rel", unit="", better="lower"),
    "rmse": Column(label="RMSE", unit="", better="lower"),
    "log_rmse": Column(label="log RMSE", unit="", better="lower"),
    "delta1": Column(label="δ<1.25", unit="", better="higher"),
    "delta2": Column(label="δ<1.25²", unit="", better="higher"),
    "delta3": Column(label="δ<1.25³", unit="", better="higher"),
}
PATH_COLUMNS: Mapping[str, Column] = {
    "ate": Column(label="ATE", unit="", better="lower", digits=4),
    "rpe_translation": Column(label="RPE translation", unit="", better="lower", digits=4),
    "rpe_rotation_deg": Column(label="RPE rotation", unit="°", better="lower", digits=3),
    "failed": Column(label="failed", unit="share", better="lower", digits=2),
}
ALIGNMENTS: Mapping[str, tuple[DepthAlignment, DepthAlignment]] = {
    "median": ("median", "median"),
    "scale": ("scale", "scale"),
    "scale-shift": ("lad", "lad_adam"),
    "metric": ("none", "none"),
}
"""Name -> the alignment of clean and of compat."""


@dataclass(frozen=True)
class VideoSet:
    """Which sequences and frames of a data set are looked at, and how its depth is masked."""

    dataset: str
    title: str
    takes: Callable[[str], bool]
    frames: Callable[[Sequence[ManifestRow]], Sequence[ManifestRow]]
    max_depth: float | None = None
    clip: float | None = None
    has_depth: bool = True
    has_poses: bool = True


def _ends_with(names: Sequence[str]) -> Callable[[str], bool]:
    return lambda scene: any(scene.split("/")[-1].endswith(name) for name in names)


def _with_depth(rows: Sequence[ManifestRow]) -> Sequence[ManifestRow]:
    return [row for row in rows if row.depth is not None]


SETS = {
    "sintel": VideoSet("sintel", "Sintel", _ends_with(SINTEL), lambda rows: rows, 70.0, 70.0),
    # 110 frames from the 31st on; short sequences (a tiny tree) are taken whole.
    "bonn": VideoSet(
        "bonn", "Bonn", _ends_with(BONN), lambda rows: rows[30:140] if len(rows) > 140 else rows, 70.0, has_poses=False
    ),
    "kitti": VideoSet(
        "kitti", "KITTI", lambda scene: True, lambda rows: _with_depth(rows)[:110], None, has_poses=False
    ),
    "tum": VideoSet("bonn", "TUM-dynamics", lambda scene: True, lambda rows: rows[::3][:90], has_depth=False),
    "scannet": VideoSet("scannet1500", "ScanNet", lambda scene: True, lambda rows: rows[:270:3], has_depth=False),
}


def _list_samples(chosen: VideoSet, at_least: int = 1) -> Callable[[Path | None, int | None], Sequence[Sample]]:
    def list_samples(root: Path | None, limit: int | None) -> Sequence[Sample]:
        folder = needs(root)
        found = {
            scene: tuple(chosen.frames(rows))
            for scene, rows in sequences(chosen.dataset, folder).items()
            if chosen.takes(scene)
        }
        samples = [Sample(key=scene, group=scene, rows=rows) for scene, rows in found.items() if len(rows) >= at_least]
        if not samples:
            raise DataError(f"{folder} holds none of the sequences of {chosen.title} that the protocol takes.")
        return samples[:limit]

    return list_samples


def _load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
    return Scene(views=load_views(sample.rows, needs(root)))


def _depth(name: str, chosen: VideoSet, alignment: str) -> Benchmark:
    clean, compat = ALIGNMENTS[alignment]

    def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
        assert scene.views.depth is not None
        truth = scene.views.depth[0].double().numpy()
        predicted = depth_maps(prediction, (truth.shape[1], truth.shape[2]), "bicubic")
        if predicted is None:
            return SampleScores(values=dict.fromkeys(DEPTH_COLUMNS, math.nan), weight=0.0)
        scores = depth_scores(
            predicted,
            truth,
            align=compat if mode == "compat" else clean,
            max_depth=chosen.max_depth,
            clip=chosen.clip,
        )
        return SampleScores(
            values={metric: float(getattr(scores, metric)) for metric in DEPTH_COLUMNS}, weight=float(scores.num_pixels)
        )

    limits = f"; truth below {chosen.max_depth:g}" if chosen.max_depth else ""
    clipped = f", predictions clipped at {chosen.clip:g}" if chosen.clip else ""
    return Benchmark(
        name=f"video-{name}-{alignment}",
        title=f"Video depth, {chosen.title}, {alignment}",
        protocol=f"depth.video.{name}.{alignment}.v1",
        dataset=chosen.dataset,
        columns=DEPTH_COLUMNS,
        list_samples=_list_samples(chosen),
        load=_load,
        score=score,
        average="weighted",
        alignment=f"{alignment} over all frames of a sequence together{limits}{clipped}",
        compat_differs="Adam with steps of 1e-4, usually not converged" if compat != clean else "",
        long_side=512,
    )


def _path(name: str, chosen: VideoSet) -> Benchmark:
    def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
        ours = predicted_poses(prediction)
        if ours is None or scene.views.world_from_camera is None:
            return SampleScores(values={**dict.fromkeys(PATH_COLUMNS, math.nan), "failed": 1.0})
        scores = trajectory_scores(ours, scene.views.world_from_camera[0].double().numpy())
        return SampleScores(
            values={
                "ate": scores.ate,
                "rpe_translation": scores.rpe_translation,
                "rpe_rotation_deg": scores.rpe_rotation_deg,
                "failed": float(np.isnan(scores.ate)),
            }
        )

    return Benchmark(
        name=f"trajectory-{name}",
        title=f"Camera trajectory, {chosen.title}",
        protocol=f"trajectory.{name}.v1",
        dataset=chosen.dataset,
        columns=PATH_COLUMNS,
        list_samples=_list_samples(chosen, at_least=2),
        load=_load,
        score=score,
        alignment="similarity of all positions of a sequence",
        long_side=512,
    )


BENCHMARKS = (
    *(_depth(name, chosen, alignment) for name, chosen in SETS.items() for alignment in ALIGNMENTS if chosen.has_depth),
    *(_path(name, chosen) for name, chosen in SETS.items() if chosen.has_poses),
)
