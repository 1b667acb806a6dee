"""Rendered scenes with exact truth: rooms, still lifes and streets of seeds that nothing is trained on. No downloads.

Six scenes of each kind, four overlapping views of 224 x 224 each. What is measured, per scene:

- depth after the ratio of (lower) medians of each view (Rel, delta1), sharpness of its edges (F1 at radius 1);
- joint points after one scale and after one similarity, accuracy and completeness, as shares of the mean distance;
- relative poses of all pairs (pooled), the opening of the lens;
- scale: |log| of the factor between the prediction's and the true size, and how well confidence ranks error (AUSE).

Predictions are brought to the truth's size by their nearest values, so that no edge is smeared in the scoring. Pixels
about which nothing finite is said are left out, and told as `missing`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from distill3d.data.render.caster import render
from distill3d.data.render.rooms import random_room, room_cameras
from distill3d.data.render.scene import Scene as Geometry
from distill3d.data.render.stills import random_still, still_cameras
from distill3d.data.render.streets import random_street
from distill3d.errors import DataError
from distill3d.eval.benchmark import Benchmark, Mode, Sample, SampleScores, Scene
from distill3d.eval.frames import confidence_maps, depth_maps, finished, world_maps
from distill3d.eval.heldout import after_similarity
from distill3d.eval.metrics.boundary import boundary_f1
from distill3d.eval.metrics.calibration import calibration
from distill3d.eval.metrics.depth import depth_alignment, depth_scores
from distill3d.eval.metrics.points import point_scores
from distill3d.eval.metrics.poses import all_pairs, auc, pair_errors, worst_angle
from distill3d.eval.scores import Column, mean_of
from distill3d.eval.truth import Truth, truth_of
from distill3d.geometry.cameras import fov_from_intrinsics
from distill3d.types import Prediction, Views

KINDS = ("indoor", "object", "outdoor")
SCENES_PER_KIND, VIEWS, SIZE = 6, 4, (224, 224)
HELD_OUT_SEED, TRAIN_SEED = 1_048_576_000_000, 2_097_152_000_000
"""First seeds of the scenes that are scored, and of those that trivial baselines are made from."""
_CLOUD_POINTS = 20_000

COLUMNS: Mapping[str, Column] = {
    "depth_rel": Column(label="Rel", unit="", better="lower"),
    "depth_delta1": Column(label="δ1", unit="", better="higher"),
    "boundary_f1": Column(label="edges F1", unit="", better="higher"),
    "points_error": Column(label="points, one scale", unit="of distance", better="lower"),
    "points_error_sim3": Column(label="points, similarity", unit="of distance", better="lower"),
    "accuracy": Column(label="accuracy", unit="of distance", better="lower"),
    "completeness": Column(label="completeness", unit="of distance", better="lower"),
    "rotation_deg": Column(label="rotation", unit="°, median", better="lower", digits=1),
    "translation_deg": Column(label="translation", unit="°, median", better="lower", digits=1),
    "auc_5": Column(label="AUC@5", unit="", better="higher"),
    "auc_30": Column(label="AUC@30", unit="", better="higher"),
    "fov_deg": Column(label="opening", unit="°", better="lower", digits=1),
    "scale": Column(label="scale", unit="abs log", better="lower"),
    "ause": Column(label="AUSE", unit="", better="lower"),
    "ause_random": Column(label="AUSE by chance", unit="", better="lower"),
    "missing": Column(label="missing", unit="", better="lower"),
}


def list_samples(root: Path | None, limit: int | None) -> Sequence[Sample]:
    """Name the scenes, one of each kind after another."""
    return samples_from(HELD_OUT_SEED)[:limit]


def samples_from(first_seed: int) -> list[Sample]:
    """Scenes of the seeds from `first_seed` on."""
    return [
        Sample(key=f"{kind}-{number}", group=kind, notes={"kind": kind, "seed": first_seed + number})
        for number in range(SCENES_PER_KIND)
        for kind in KINDS
    ]


def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
    """Render a scene with its exact depth and cameras."""
    return Scene(views=photograph(sample.notes["kind"], sample.notes["seed"]))


def photograph(kind: str, seed: int, views: int = VIEWS, size: tuple[int, int] = SIZE) -> Views:
    """Views of the scene of a kind and seed, in the camera frame of the first.

    Raises:
        DataError: there is no such kind.
    """
    geometry: Geometry
    if kind == "object":
        geometry = random_still(seed)
        poses, intrinsics = still_cameras(views, size, seed)
    elif kind in KINDS:
        place = random_room(seed) if kind == "indoor" else random_street(seed)
        geometry = place.scene
        poses, intrinsics = room_cameras(place, views, size, seed)
    else:
        raise DataError(f"There are no scenes of the kind {kind!r}; choose one of: {', '.join(KINDS)}.")
    return render(geometry, poses[None], intrinsics[None], size)


def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
    """Score one scene; what a network does not say is NaN."""
    truth = truth_of(scene.views)
    size = (truth.depth.shape[1], truth.depth.shape[2])
    whole = finished(prediction)
    values = dict.fromkeys(("depth_rel", "depth_delta1", "boundary_f1", "fov_deg", "scale", "ause"), math.nan)
    lists: dict[str, tuple[float, ...]] = {}
    missing: list[float] = []
    depth = depth_maps(prediction, size, "nearest")
    if depth is not None:
        missing.append(truth.share_missing(np.isfinite(depth)))
        scores, curves = _score_depth(depth, truth, confidence_maps(prediction, size))
        values |= scores
        lists |= curves
    world = world_maps(whole, size, "nearest")
    if world is not None:
        shown = truth.valid & np.isfinite(world).all(axis=-1)
        missing.append(truth.share_missing(shown))
        scaled = point_scores(world, truth.world, shown, align="scale")
        values["points_error"] = scaled.relative
        values["scale"] = abs(math.log(scaled.scale)) if scaled.scale > 0 else math.nan
        values |= after_similarity(world[shown], truth.world[shown], _CLOUD_POINTS)
    values["missing"] = max(missing, default=1.0)
    if whole.intrinsics is not None:
        height, width = whole.intrinsics.new_tensor(_shown_size(prediction)).tolist()
        opening = fov_from_intrinsics(whole.intrinsics[0].double(), int(height), int(width))[:, 0]
        assert scene.views.intrinsics is not None
        true_opening = fov_from_intrinsics(scene.views.intrinsics[0].double(), *size)[:, 0]
        values["fov_deg"] = float(torch.rad2deg((opening - true_opening).abs()).mean())
    if whole.world_from_camera is not None:
        poses = whole.world_from_camera[0].double().numpy()
        turned, moved = pair_errors(poses, truth.world_from_camera, all_pairs(len(poses)))
        lists |= {"rotation_deg": tuple(turned.tolist()), "translation_deg": tuple(moved.tolist())}
    return SampleScores(values=values, lists=lists)


def _shown_size(prediction: Prediction) -> tuple[int, int]:
    """Height and width of the maps, which the network's intrinsics speak of."""
    for maps in (prediction.pointmap_camera, prediction.pointmap_world, prediction.depth):
        if maps is not None:
            return maps.shape[2], maps.shape[3]
    return SIZE


def _score_depth(
    depth: Float[np.ndarray, "views height width"],
    truth: Truth,
    confidence: Float[np.ndarray, "views height width"] | None,
) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
    shown = truth.valid & np.isfinite(depth)
    of_views = [depth_scores(d, g, use) for d, g, use in zip(depth, truth.depth, shown, strict=True) if use.any()]
    edges = [boundary_f1(d, g, use) for d, g, use in zip(depth, truth.depth, shown & (depth > 0), strict=True)]
    values = {
        "depth_rel": mean_of([scores.abs_rel for scores in of_views]),
        "depth_delta1": mean_of([scores.delta1 for scores in of_views]),
        "boundary_f1": mean_of(edges),
    }
    if confidence is None or not shown.any():
        return values, {}
    error = np.full(depth.shape, np.nan)
    for view, use in enumerate(shown):
        if use.any():
            scale, _ = depth_alignment(depth[view][use], truth.depth[view][use], "median")
            error[view][use] = np.abs(scale * depth[view][use] - truth.depth[view][use]) / truth.depth[view][use]
    found = calibration(error[shown], -confidence[shown])
    values |= {"ause": found.ause, "ause_random": found.ause_random}
    curves = {"sparsification": found.by_uncertainty, "oracle": found.by_error}
    return values, {name: tuple(round(float(value), 6) for value in curve) for name, curve in curves.items()}


def pooled(lists: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Pose metrics over all pairs of all scenes."""
    if "rotation_deg" not in lists:
        return {}
    turned, moved = lists["rotation_deg"], lists["translation_deg"]
    worst = worst_angle(turned, moved)
    return {
        "rotation_deg": float(np.nanmedian(turned)),
        "translation_deg": float(np.nanmedian(moved)),
        "auc_5": auc(worst, 5),
        "auc_30": auc(worst, 30),
    }


BENCHMARKS = (
    Benchmark(
        name="synthetic",
        title="Rendered scenes: indoor, object, outdoor",
        protocol="synthetic.v1",
        columns=COLUMNS,
        list_samples=list_samples,
        load=load,
        score=score,
        pooled=pooled,
        alignment="depth: ratio of medians of each view; points: one scale, and one similarity, of all views together",
    ),
)
