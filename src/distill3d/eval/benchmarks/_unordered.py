"""Poses of ten frames of a sequence, all 45 pairs: RRA, RTA and AUC as VGGT, Pi3 and Fast3R count them.

- `vggt`, `pi3`: exact rotation angles, translation angles folded to [0, 90], AUC by one-degree bins; VGGT averages over
  categories, Pi3 pools all pairs.
- `fast3r`: mAA(30) by 31 bins, the mean of per-sequence values. Its arc cosine goes on as a straight line near its ends
  (`compat`), which changes errors below 0.8 degrees.

The fixed frame lists of the papers are not part of this project: put one beside the data (`frames.json`), else ten
frames evenly spread are taken, and the hash of the frames in the results tells.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from distill3d.data.rows import ManifestRow
from distill3d.eval.benchmark import Average, Benchmark, Mode, Published, Sample, SampleScores, Scene
from distill3d.eval.benchmarks._poses import failures, predicted_poses
from distill3d.eval.benchmarks._sequences import evenly, needs, sequences
from distill3d.eval.frames import load_views
from distill3d.eval.metrics.poses import RotationVariant, all_pairs, auc, pair_errors, recall, worst_angle
from distill3d.eval.scores import Column
from distill3d.types import Prediction

NUM_FRAMES = 10
Flavour = Literal["vggt", "pi3", "fast3r"]

COLUMNS: Mapping[str, Column] = {
    **{f"rra_{limit}": Column(label=f"RRA@{limit}", unit="%", better="higher", digits=2) for limit in (5, 15, 30)},
    **{f"rta_{limit}": Column(label=f"RTA@{limit}", unit="%", better="higher", digits=2) for limit in (5, 15, 30)},
    "auc_30": Column(label="AUC@30", unit="%", better="higher", digits=2),
}
FAST3R_COLUMNS = {**COLUMNS, "auc_30": Column(label="mAA(30)", unit="%", better="higher", digits=2)}


def ten_frames(
    dataset: str,
    title: str,
    flavour: Flavour,
    *,
    group_of: Callable[[str], str],
    usable: Callable[[Sequence[ManifestRow]], bool] = lambda rows: len(rows) >= 2,
    published: tuple[Published, ...] = (),
) -> Benchmark:
    """The evaluation of one data set in one flavour.

    Args:
        dataset: name of the loader.
        title: for people.
        flavour: whose counting.
        group_of: scene -> category, for averages over categories.
        usable: which sequences count.
        published: rows of papers.
    """

    def list_samples(root: Path | None, limit: int | None) -> Sequence[Sample]:
        folder = needs(root)
        samples = []
        for scene, rows in sequences(dataset, folder).items():
            posed = [row for row in rows if row.world_from_camera is not None]
            if usable(posed):
                chosen = evenly(posed, folder, NUM_FRAMES)
                samples.append(Sample(key=scene, group=group_of(scene), rows=chosen))
        return [sample for sample in samples if len(sample.rows) >= 2][:limit]

    def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
        return Scene(views=load_views(sample.rows, needs(root)))

    def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
        assert scene.views.world_from_camera is not None
        true = scene.views.world_from_camera[0].double().numpy()
        pairs = all_pairs(len(true))
        ours = predicted_poses(prediction)
        if ours is None:
            turned = moved = np.array(failures(len(pairs)))
        else:
            # VGGT and Pi3 compare j_from_i, Fast3R i_from_j.
            ordered = pairs if flavour == "fast3r" else [(j, i) for i, j in pairs]
            rotation: RotationVariant = "extrapolated" if flavour == "fast3r" and mode == "compat" else "exact"
            turned, moved = pair_errors(ours, true, ordered, translation="folded", rotation=rotation)
        if flavour == "fast3r":
            return SampleScores(values=_numbers(turned, moved, "histogram"))
        return SampleScores(
            values={}, lists={"rotation_deg": tuple(turned.tolist()), "translation_deg": tuple(moved.tolist())}
        )

    average: Average = "groups" if flavour == "vggt" else "samples"
    return Benchmark(
        name=f"{dataset}-{flavour}",
        title=title,
        protocol=f"pose.{flavour}.{dataset}.v1",
        dataset=dataset,
        columns=FAST3R_COLUMNS if flavour == "fast3r" else COLUMNS,
        list_samples=list_samples,
        load=load,
        score=score,
        pooled=None if flavour == "fast3r" else _pooled,
        average=average,
        published=published,
        alignment="none: relative poses of all pairs",
        compat_differs="the arc cosine goes on as a straight line near its ends" if flavour == "fast3r" else "",
        long_side=512,
    )


def _pooled(lists: Mapping[str, np.ndarray]) -> dict[str, float]:
    return _numbers(lists["rotation_deg"], lists["translation_deg"], "binned")


def _numbers(turned: np.ndarray, moved: np.ndarray, variant: Literal["binned", "histogram"]) -> dict[str, float]:
    return {
        **{f"rra_{limit}": 100 * recall(turned, limit) for limit in (5, 15, 30)},
        **{f"rta_{limit}": 100 * recall(moved, limit) for limit in (5, 15, 30)},
        "auc_30": 100 * auc(worst_angle(turned, moved), 30, variant),
    }
