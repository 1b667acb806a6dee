"""Single photos as MoGe evaluates them: NYUv2, KITTI, ETH3D, iBims-1, GSO, Sintel, DDAD, DIODE, Spring, HAMMER.

The data are MoGe's own bundle (`data.datasets.moge`), the alignments those of `metrics.monocular`. Means are taken
over the photos of each set, then over the sets that have a metric. A network that says nothing about metres
takes part in all but the metric disciplines; with --metric (or a metric scale of its own) in those as well.

Published rows are Fin3R's, whose mean is over 7 of the sets; MoGe's paper has other numbers for DUSt3R on two, so
the settings differ somewhere. Both the scale- and the affine-invariant errors are given here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from distill3d.data.frames import read_depth, read_picture
from distill3d.errors import DataError
from distill3d.eval.benchmark import Benchmark, Mode, Published, Sample, SampleScores, Scene
from distill3d.eval.benchmarks._moge_sample import prepare, read_segments
from distill3d.eval.benchmarks._sequences import needs, sequences
from distill3d.eval.frames import depth_maps, finished, local_maps
from distill3d.eval.metrics.monocular import MonocularPrediction, MonocularTruth, monocular_scores
from distill3d.eval.scores import Column
from distill3d.geometry.cameras import centred_intrinsics
from distill3d.types import Prediction, Views


class _Set:
    """Size of a set, and what its truth is good for."""

    def __init__(self, width: int, height: int, *, metric: bool, sharp: bool) -> None:
        self.size, self.metric, self.sharp = (height, width), metric, sharp


SETS: Mapping[str, _Set] = {
    "nyuv2": _Set(640, 480, metric=True, sharp=False),
    "kitti": _Set(750, 375, metric=True, sharp=False),
    "eth3d": _Set(2048, 1365, metric=True, sharp=False),
    "ibims1": _Set(640, 480, metric=True, sharp=True),
    "gso": _Set(512, 512, metric=False, sharp=False),
    "sintel": _Set(872, 436, metric=False, sharp=True),
    "ddad": _Set(1400, 700, metric=True, sharp=False),
    "diode": _Set(1024, 768, metric=True, sharp=False),
    "spring": _Set(1920, 1080, metric=False, sharp=True),
    "hammer": _Set(1664, 832, metric=True, sharp=True),
}
_LABELS = {
    "depth_metric": "metric depth",
    "depth_scale_invariant": "depth, scale-inv.",
    "depth_affine_invariant": "depth, affine-inv.",
    "disparity_affine_invariant": "disparity, affine-inv.",
    "points_metric": "metric points",
    "points_scale_invariant": "points, scale-inv.",
    "points_affine_invariant": "points, affine-inv.",
    "local_points": "local points",
}
_PERCENT = 100.0
COLUMNS: Mapping[str, Column] = {
    **{
        f"{name}.{kind}": Column(
            label=f"{label} {'Rel' if kind == 'rel' else 'δ1'}",
            unit="%",
            better="lower" if kind == "rel" else "higher",
            digits=2,
        )
        for name, label in _LABELS.items()
        for kind in ("rel", "delta1")
    },
    "fov_x.mae": Column(label="opening", unit="°", better="lower", digits=2),
    **{
        f"boundary.radius{radius}_f1": Column(label=f"edges F1, r={radius}", unit="%", better="higher", digits=2)
        for radius in (1, 2, 3)
    },
}
_FIN3R = "Fin3R, Table 1 (mean of 7 sets); its setting is not exactly MoGe's"
_FIN3R_METRIC = "Fin3R, metric depth of MASt3R, mean over its sets"
_RELATIVE, _NEAR = "depth_scale_invariant.rel", "depth_scale_invariant.delta1"
PUBLISHED = (
    *(
        Published(
            method=method,
            values={_RELATIVE: relative, _NEAR: near},
            source=_FIN3R,
            groups={name: {_RELATIVE: value} for name, value in zip(("nyuv2", "kitti", "eth3d"), sets, strict=True)},
        )
        for method, sets, relative, near in (
            ("DUSt3R", (3.83, 7.64, 5.35), 7.03, 92.3),
            ("DUSt3R + Fin3R", (3.68, 6.02, 4.41), 5.58, 94.8),
            ("VGGT", (3.14, 5.83, 3.64), 5.77, 94.0),
            ("VGGT + Fin3R", (3.10, 4.59, 3.07), 4.29, 96.7),
            ("MoGe", (3.02, 4.39, 2.96), 4.14, 96.9),
        )
    ),
    Published(method="MASt3R", values={"depth_metric.rel": 49.62}, source=_FIN3R_METRIC),
    Published(method="MASt3R + Fin3R", values={"depth_metric.rel": 27.60}, source=_FIN3R_METRIC),
)


def set_of(name: str) -> str:
    """Key of a set in `SETS`, from the name of its folder ("iBims-1", "NYUv2").

    Raises:
        DataError: it is none of the ten.
    """
    key = "".join(letter for letter in name.lower() if letter.isalnum())
    if key not in SETS:
        raise DataError(f"{name} is none of the sets of this benchmark: {', '.join(SETS)}.")
    return key


def list_samples(root: Path | None, limit: int | None) -> Sequence[Sample]:
    """Every photo of every set; a limit is per set."""
    counts: dict[str, int] = {}
    samples = []
    for scene, rows in sequences("moge", needs(root)).items():
        group = set_of(scene.split("/")[0])
        counts[group] = counts.get(group, 0) + 1
        if limit is None or counts[group] <= limit:
            samples.append(Sample(key=scene, group=group, rows=rows))
    return samples


def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
    """Read and warp one photo."""
    row, folder, target = sample.rows[0], needs(root), SETS[sample.group]
    depth = read_depth(row, folder)
    if depth is None or row.intrinsics is None:
        raise DataError(f"{sample.key} has no depth or no camera.")
    matrix = np.array(row.intrinsics, dtype=np.float64)
    matrix[:2, 2] += 0.5  # corners at 0 and 1
    matrix[0] /= row.width
    matrix[1] /= row.height
    found = read_segments((folder / row.image.path).parent / "segmentation.png")
    labels, names = found if found is not None else (None, None)
    made = prepare(read_picture(row, folder), depth, matrix, target.size, labels, names)
    height, width = target.size
    focal = torch.tensor([made.focal[0] * width], dtype=torch.float64)
    extra = {f"segment_{number}": segment for number, segment in enumerate(made.segments)}
    return Scene(
        views=Views(
            images=torch.from_numpy(made.image.copy()).permute(2, 0, 1)[None, None].float() / 255,
            intrinsics=centred_intrinsics(focal, height, width)[None].float(),
            depth=torch.from_numpy(np.nan_to_num(made.depth)).float()[None, None],
            is_metric=torch.tensor([target.metric]),
        ),
        extra={"depth": made.depth, "points": made.points, "focal": np.array(made.focal), **extra},
    )


def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
    """Score one photo in every discipline that the prediction takes part in; shares in percent."""
    depth = scene.extra["depth"]
    target = SETS[sample.group]
    truth = MonocularTruth(
        depth=np.where(np.isfinite(depth), depth, 1.0),
        points=scene.extra["points"],
        valid=np.isfinite(depth),
        focal_x=float(scene.extra["focal"][0]),
        is_metric=target.metric,
        sharp_boundary=target.sharp,
        segments=tuple(value for name, value in scene.extra.items() if name.startswith("segment_")),
    )
    claims = _claims(prediction, (depth.shape[0], depth.shape[1]))
    found = monocular_scores(claims, truth, signed_ratio=mode == "compat")
    return SampleScores(
        values={
            name: value * (1.0 if name.startswith("fov") else _PERCENT)
            for name, value in found.items()
            if name in COLUMNS
        }
    )


def _claims(prediction: Prediction, size: tuple[int, int]) -> MonocularPrediction:
    """What the prediction says, at the size of the truth (bilinear)."""
    whole = finished(prediction)
    depth, points = depth_maps(prediction, size, "bilinear"), local_maps(prediction, size, "bilinear")
    focal = None
    if whole.intrinsics is not None:
        shown = next(m for m in (whole.pointmap_camera, whole.pointmap_world, whole.depth) if m is not None)
        focal = float(whole.intrinsics[0, 0, 0, 0]) / shown.shape[3]
    first_depth = None if depth is None else depth[0]
    first_points = None if points is None else points[0]
    if prediction.metric_scale is None:
        return MonocularPrediction(
            depth_scale_invariant=first_depth, points_scale_invariant=first_points, focal_x=focal
        )
    factor = float(prediction.metric_scale.flatten()[0])
    return MonocularPrediction(
        depth_metric=None if first_depth is None else factor * first_depth,
        points_metric=None if first_points is None else factor * first_points,
        focal_x=focal,
    )


BENCHMARKS = (
    Benchmark(
        name="monocular",
        title="Single photos as MoGe evaluates them",
        protocol="mono.moge.v1",
        dataset="moge",
        columns=COLUMNS,
        list_samples=list_samples,
        load=load,
        score=score,
        average="groups",
        published=PUBLISHED,
        compat_differs="a depth that a fit has made negative counts as near (δ1), as the formula has it by the letter",
        alignment="exact least absolute distances over 64 x 64 pixels, weighted by the inverse of depth or distance",
    ),
)
