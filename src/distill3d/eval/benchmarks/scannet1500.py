"""ScanNet-1500: relative pose of 1500 pairs of frames; AUC at 5, 10 and 20 degrees by trapezoids.

Pictures at 640 x 480, cut around the principal point, then 512 x 384 (518 x 392 for patches of 14). The error of a pair
is the larger of the angle between the rotations and the angle between the translations; a failure is infinite. Two
variants: `scannet1500` keeps the sign of the translation (Reloc3r, Fin3R), `scannet1500-superglue` does not (SuperGlue,
LoFTR), and each compares the relative pose in its own direction. The truth is `rel_pose` of the list.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from distill3d.data.datasets.scannet1500 import read_pairs
from distill3d.errors import DataError
from distill3d.eval.benchmark import Benchmark, Mode, Published, Sample, SampleScores, Scene
from distill3d.eval.benchmarks._poses import failures, predicted_poses
from distill3d.eval.benchmarks._sequences import needs, sequences
from distill3d.eval.frames import load_views
from distill3d.eval.inputs import crop_around_principal_point, resize_views
from distill3d.eval.metrics.poses import TranslationVariant, auc, pair_errors, worst_angle
from distill3d.eval.scores import Column
from distill3d.types import Prediction

_FULL, _SHOWN = (480, 640), (384, 512)

COLUMNS: Mapping[str, Column] = {
    f"auc_{threshold}": Column(label=f"AUC@{threshold}", unit="%", better="higher", digits=2)
    for threshold in (5, 10, 20)
} | {
    "rotation_deg": Column(label="rotation", unit="°, median", better="lower", digits=2),
    "translation_deg": Column(label="translation", unit="°, median", better="lower", digits=2),
}

_FIN3R = "Fin3R, Table 2; its image size for VGGT is not published"


def _row(method: str, *areas: float) -> Published:
    names = ("auc_5", "auc_10", "auc_20")
    return Published(method=method, values=dict(zip(names, areas, strict=False)), source=_FIN3R)


PUBLISHED = (
    _row("DUSt3R", 31.61, 53.77, 70.99),
    _row("DUSt3R + Fin3R", 33.73, 55.67, 72.66),
    _row("MASt3R", 37.60, 59.96, 76.24),
    _row("MASt3R + Fin3R", 37.93, 60.21, 76.68),
    _row("VGGT", 28.40, 47.36, 61.51),
    _row("VGGT + Fin3R", 35.21, 56.70, 72.80),
    _row("Reloc3r", 34.79),
)


def list_samples(root: Path | None, limit: int | None) -> Sequence[Sample]:
    """The pairs of `test.npz`; a pair whose frames are absent is listed as skipped when it is loaded."""
    folder = needs(root)
    found = sequences("scannet1500", folder)
    samples = []
    for number, pair in enumerate(read_pairs(folder / "test.npz")[:limit]):
        rows = {row.frame: row for row in found.get(pair.scene, ())}
        samples.append(
            Sample(
                key=f"{number:04d}-{pair.scene}-{pair.frames[0]}-{pair.frames[1]}",
                rows=tuple(rows[frame] for frame in pair.frames if frame in rows),
                notes={"view1_from_view0": pair.view1_from_view0.tolist(), "frames": list(pair.frames)},
            )
        )
    return samples


def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
    """Read a pair."""
    if len(sample.rows) != 2:
        raise DataError(f"{sample.key}: only {len(sample.rows)} of its 2 frames can be used.")
    return Scene(views=resize_views(crop_around_principal_point(load_views(sample.rows, needs(root), _FULL)), _SHOWN))


def _score(prediction: Prediction, sample: Sample, variant: TranslationVariant) -> SampleScores:
    ours = predicted_poses(prediction)
    if ours is None:
        return SampleScores(values={}, lists={"rotation_deg": failures(1), "translation_deg": failures(1)})
    view1_from_view0 = np.array(sample.notes["view1_from_view0"])
    true = np.stack([np.eye(4), torch.linalg.inv(torch.from_numpy(view1_from_view0)).numpy()])
    # Reloc3r compares view0_from_view1, SuperGlue the list's own view1_from_view0: another vector, hence another angle.
    pair = (0, 1) if variant == "signed" else (1, 0)
    turned, moved = pair_errors(ours, true, [pair], translation=variant)
    return SampleScores(
        values={}, lists={"rotation_deg": tuple(turned.tolist()), "translation_deg": tuple(moved.tolist())}
    )


def pooled(lists: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Areas over all pairs, in percent."""
    turned, moved = lists["rotation_deg"], lists["translation_deg"]
    worst = worst_angle(turned, moved)
    return {
        **{f"auc_{threshold}": 100 * auc(worst, threshold) for threshold in (5, 10, 20)},
        "rotation_deg": float(np.nanmedian(turned)),
        "translation_deg": float(np.nanmedian(moved)),
    }


def _benchmark(suffix: str, title: str, variant: TranslationVariant, published: tuple[Published, ...]) -> Benchmark:
    def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
        return _score(prediction, sample, variant)

    return Benchmark(
        name=f"scannet1500{suffix}",
        title=title,
        protocol=f"pose.scannet1500{suffix or '-reloc3r'}.v1",
        dataset="scannet1500",
        columns=COLUMNS,
        list_samples=list_samples,
        load=load,
        score=score,
        pooled=pooled,
        published=published,
        long_side=512,
        alignment="none: relative poses of each pair",
    )


BENCHMARKS = (
    _benchmark("", "ScanNet-1500, signed translation (Reloc3r, Fin3R)", "signed", PUBLISHED),
    _benchmark("-superglue", "ScanNet-1500, unsigned translation (SuperGlue, LoFTR)", "folded", ()),
)
