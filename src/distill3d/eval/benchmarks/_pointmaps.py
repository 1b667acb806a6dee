"""Multi-view pointmaps under the settings of Pi3, CUT3R / Spann3R and Fast3R; the data sets' files choose.

The three settings give very different numbers for one model, so each has its own protocol id:

- `recon.pi3`: Umeyama over all corresponding pixels, then rigid ICP.
- `recon.cut3r`: medians of depth and size (no rotation), the central 224 x 224 pixels, then ICP.
- `recon.fast3r`: local maps to the common map view by view, then one similarity over confident pixels; no ICP.

Pixels about which a prediction says nothing (not finite) take no part in the alignment and in the accuracy. The truth
there still has to be reached: completeness is over all of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from distill3d.data.rows import ManifestRow
from distill3d.errors import DataError
from distill3d.eval.benchmark import Benchmark, Mode, Sample, SampleScores, Scene
from distill3d.eval.benchmarks._clouds import COLUMNS, align_by_similarity, compare, nothing, refine, truth_points
from distill3d.eval.benchmarks._sequences import listed, needs, one_per_scene, sequences
from distill3d.eval.frames import confidence_maps, finished, load_views, local_maps, world_maps
from distill3d.eval.inputs import crop_around_principal_point, input_size, resize_like_pi3, resize_views
from distill3d.eval.metrics.registration import align_by_medians, confident_similarity
from distill3d.types import Prediction

Chosen = Callable[[dict[str, tuple[ManifestRow, ...]]], dict[str, tuple[ManifestRow, ...]]]
"""Which scenes of a data set a protocol takes."""
Prepare = Callable[[Sequence[ManifestRow], Mode], Sequence[ManifestRow]]
Maps = Float[np.ndarray, "views height width 3"]
Mask = Bool[np.ndarray, "views height width"]

ICP_LIMIT_M = 0.1
_CUT3R_SIZE, _CUT3R_CROP = (384, 512), 224
_FAST3R_WIDTH, _FAST3R_PATCH = 512, 16


def as_they_are(rows: Sequence[ManifestRow], mode: Mode) -> Sequence[ManifestRow]:
    """Nothing to prepare."""
    return rows


def pi3(
    dataset: str,
    title: str,
    *,
    suffix: str,
    stride: int,
    choose: Chosen,
    prepare: Prepare = as_they_are,
    unit: float = 1.0,
    icp_limit: float = ICP_LIMIT_M,
    quirks: str = "",
) -> Benchmark:
    """The evaluation setting of Pi3: 518 pixels wide, every so many frames, Umeyama and ICP."""

    def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
        rows = prepare(sample.rows, mode)
        size, _ = resize_like_pi3(np.eye(3), (rows[0].height, rows[0].width))
        views = load_views(rows, needs(root), size)
        if mode == "compat":
            cameras = [
                resize_like_pi3(np.array(row.intrinsics), (row.height, row.width))[1]
                for row in rows
                if row.intrinsics is not None
            ]
            views = replace(views, intrinsics=torch.from_numpy(np.stack(cameras))[None].float())
        return Scene(views=views)

    def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
        truth, valid = truth_points(scene.views, unit)
        predicted = world_maps(finished(prediction), (truth.shape[1], truth.shape[2]), "bilinear")
        if predicted is None:
            return SampleScores(values=nothing())
        use = valid & np.isfinite(predicted).all(axis=-1)
        if not use.any():
            return SampleScores(values=nothing())
        aligned = align_by_similarity(predicted[use], truth[use])
        return SampleScores(values=compare(refine(aligned, truth[valid], icp_limit), truth[valid]))

    quirk = "both focal lengths and the principal point are scaled by the larger of the two ratios"
    return _benchmark(
        dataset,
        title,
        name=f"{dataset}{suffix}",
        protocol=f"recon.pi3.{dataset}{suffix}.v1",
        stride=stride,
        choose=choose,
        load=load,
        score=score,
        alignment=f"Umeyama over all pixels, then ICP within {icp_limit:g}",
        quirks="; ".join(part for part in (quirk, quirks) if part),
    )


def cut3r(
    dataset: str, title: str, *, stride: int, choose: Chosen, prepare: Prepare = as_they_are, quirks: str = ""
) -> Benchmark:
    """The setting of CUT3R and Spann3R: 512 x 384 around the principal point, medians, the centre, ICP."""

    def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
        rows = prepare(sample.rows, mode)
        return Scene(views=resize_views(crop_around_principal_point(load_views(rows, needs(root))), _CUT3R_SIZE))

    def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
        world, valid = truth_points(scene.views)
        predicted = world_maps(finished(prediction), (world.shape[1], world.shape[2]), "bilinear")
        if predicted is None:
            return SampleScores(values=nothing())
        assert scene.views.world_from_camera is not None
        world_from_first = scene.views.world_from_camera[0, 0].double().numpy()
        camera_from_world = np.linalg.inv(world_from_first)
        truth = world @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
        use = valid & np.isfinite(predicted).all(axis=-1)
        if not use.any():
            return SampleScores(values=nothing())
        found = align_by_medians(np.where(use[..., None], predicted, 0.0), truth, use)
        back = np.array([0, 0, found.truth_shift_z])
        ours, true = (
            (maps + back) @ world_from_first[:3, :3].T + world_from_first[:3, 3]
            for maps in (found.predicted, found.truth)
        )
        centre = _centre(valid, _CUT3R_CROP)
        said = centre & use & np.isfinite(ours).all(axis=-1)
        if not said.any():
            return SampleScores(values=nothing())
        return SampleScores(values=compare(refine(ours[said], true[centre], ICP_LIMIT_M), true[centre]))

    return _benchmark(
        dataset,
        title,
        name=f"{dataset}-cut3r",
        protocol=f"recon.cut3r.{dataset}.v1",
        stride=stride,
        choose=choose,
        load=load,
        score=score,
        alignment=f"medians of depth and size in the first camera, central {_CUT3R_CROP} pixels, ICP within 0.1",
        quirks=quirks,
        long_side=512,
    )


def fast3r(
    dataset: str,
    title: str,
    *,
    stride: int,
    choose: Chosen,
    prepare: Prepare = as_they_are,
    unit: float = 1.0,
    quirks: str = "",
) -> Benchmark:
    """The setting of Fast3R: local maps put into the common one, one similarity over confident pixels, no ICP."""

    def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
        rows = prepare(sample.rows, mode)
        size = input_size((rows[0].height, rows[0].width), _FAST3R_WIDTH, _FAST3R_PATCH)
        return Scene(views=load_views(rows, needs(root), size))

    def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
        truth, valid = truth_points(scene.views, unit)
        size = (truth.shape[1], truth.shape[2])
        world = world_maps(prediction, size, "bilinear")
        local = None if prediction.pointmap_camera is None else local_maps(prediction, size, "bilinear")
        if world is None:
            world = world_maps(finished(prediction), size, "bilinear")
        if world is None or not valid.any():
            return SampleScores(values=nothing())
        confidence = confidence_maps(prediction, size)
        confidence = np.ones(valid.shape) if confidence is None else confidence
        known = np.isfinite(world).all(axis=-1) & np.isfinite(confidence)
        known &= np.isfinite(local).all(axis=-1) if local is not None else True
        # Compat looks at the truth's mask where it moves the local maps; that much of the truth is told to the method.
        moved = world if local is None else _local_in_world(local, world, confidence, known & valid, known, mode)
        return SampleScores(values=_score_confident(moved, truth, confidence, known & valid, valid))

    quirk = "the local maps are moved by pixels that the truth calls valid"
    return _benchmark(
        dataset,
        title,
        name=f"{dataset}-fast3r",
        protocol=f"recon.fast3r.{dataset}.v1",
        stride=stride,
        choose=choose,
        load=load,
        score=score,
        alignment="local to common map by view, then one similarity; both over pixels from the 85th percentile on",
        quirks="; ".join(part for part in (quirk, quirks) if part),
        long_side=_FAST3R_WIDTH,
    )


def _local_in_world(local: Maps, world: Maps, confidence: np.ndarray, masked: Mask, known: Mask, mode: Mode) -> Maps:
    moved = np.full_like(local, np.nan)
    for view in range(len(local)):
        use = masked[view] if mode == "compat" else known[view]
        if use.sum() < 3:
            continue
        fit = confident_similarity(local[view][use], world[view][use], confidence[view][use])
        moved[view] = fit.apply(torch.from_numpy(local[view].reshape(-1, 3))).numpy().reshape(local[view].shape)
    return moved


def _score_confident(moved: Maps, truth: Maps, confidence: np.ndarray, use: Mask, valid: Mask) -> dict[str, float]:
    """One similarity of all views over each view's confident pixels in `use`; all points there are scored."""
    use = use & np.isfinite(moved).all(axis=-1)
    if not use.any():
        return nothing()
    sure = np.zeros_like(use)
    for view, inside in enumerate(use):
        if inside.any():
            sure[view] = inside & (confidence[view] >= np.percentile(confidence[view][inside], 85))
    ones = np.ones(int(sure.sum()))
    fit = confident_similarity(moved[sure], truth[sure], ones)
    aligned = fit.apply(torch.from_numpy(moved[use])).numpy()
    return compare(aligned, truth[valid])


def _centre(use: Mask, side: int) -> Mask:
    height, width = use.shape[1:]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    kept = np.zeros_like(use)
    kept[:, top : top + side, left : left + side] = use[:, top : top + side, left : left + side]
    return kept


def _benchmark(
    dataset: str,
    title: str,
    *,
    name: str,
    protocol: str,
    stride: int,
    choose: Chosen,
    load: Callable[[Sample, Path | None, Mode], Scene],
    score: Callable[[Prediction, Scene, Sample, Mode], SampleScores],
    alignment: str,
    quirks: str,
    long_side: int = 518,
) -> Benchmark:
    def list_samples(root: Path | None, limit: int | None) -> Sequence[Sample]:
        folder = needs(root)
        chosen = {scene: listed(rows, folder, stride) for scene, rows in choose(sequences(dataset, folder)).items()}
        samples = one_per_scene(chosen)[:limit]
        if not samples:
            raise DataError(f"{folder} holds none of the scenes that {protocol} takes.")
        return samples

    return Benchmark(
        name=name,
        title=title,
        protocol=protocol,
        dataset=dataset,
        columns=COLUMNS,
        list_samples=list_samples,
        load=load,
        score=score,
        alignment=alignment,
        compat_differs=quirks,
        long_side=long_side,
    )
