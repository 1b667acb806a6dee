"""Second step of the evaluation: score stored predictions on held-out groups, protocol `heldout.v1`.

What the numbers mean is fixed here and by the id; a change of any definition gets a new id.

- The truth is the group's depth, intrinsics and poses, in the camera frame of its first view. Every pixel with known
  depth counts, whatever a model's own mask says; pixels without a finite prediction are left out and told in `missing`.
- Depth: z of the local map, each view scaled by the ratio of the (lower) medians; mean over pixels, views, groups.
- Points: all world points of a group together, as a share of the truth's mean distance from the first camera.
- Clouds: after the similarity, 20,000 points evenly chosen from each; the mean exact distance of 4,000 of them to the
  nearest of the other 20,000, as the same share.
- Poses: the model's own, else the robust similarity from local to world map, as `infer.cameras` finds them; pairs of
  all groups are pooled before median, recall and AUC (trapezoid, larger of rotation and signed translation angle).
"""

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from distill3d.data.fit import ImageFit
from distill3d.data.groups import load_group
from distill3d.data.manifest import Manifest
from distill3d.data.sampling import ViewGroup
from distill3d.errors import ConfigError, DataError, GeometryError
from distill3d.eval.metrics.depth import depth_scores
from distill3d.eval.metrics.points import cloud_scores, fit_similarity, point_scores
from distill3d.eval.metrics.poses import all_pairs, pair_errors
from distill3d.eval.predictions import (
    group_settings,
    load_prediction,
    prediction_path,
    read_settings,
    refuse_other_settings,
)
from distill3d.eval.scores import (
    GROUP_MEANS,
    PROTOCOL,
    GroupScores,
    HeldoutScores,
    aggregate,
    common_reason,
    mean_of,
    stored,
)
from distill3d.eval.truth import Truth, missing_truth, truth_of
from distill3d.infer.cameras import complete
from distill3d.progress import ProgressBar
from distill3d.types import Prediction, Views

logger = logging.getLogger(__name__)

CLOUD_POINTS = 20_000
"""Points of a group, at most, that accuracy and completeness look at."""
CLOUD_QUERIES = 4_000
"""Points of each cloud, at most, whose nearest neighbours are averaged."""


def score_heldout(
    methods: Mapping[str, str | Path],
    manifest: Manifest,
    groups: Sequence[ViewGroup],
    fit: ImageFit,
    *,
    canvas: tuple[int, int] | None = None,
    cloud_points: int = CLOUD_POINTS,
    reference: str | Path | None = None,
) -> HeldoutScores:
    """Score the predictions of several methods on the same groups; a group without truth is skipped in words.

    Args:
        methods: name -> folder that `predict_heldout` wrote, in the order of the table.
        manifest: where the groups come from.
        groups: at least one must have depth, intrinsics and poses.
        fit: as it was for the predictions.
        canvas: as it was for the predictions.
        cloud_points: see `CLOUD_POINTS`; another number is told in the protocol's id.
        reference: a folder of predictions (a teacher's) to take for the truth where photos have none. Then the scores
            measure agreement, and their protocol is called so.

    Raises:
        ConfigError: a folder was made with other settings, or lacks groups.
        DataError: not one group can be scored.
    """
    if not methods:
        raise ConfigError("there is no method to score; name at least one folder of predictions")
    folders = {name: Path(folder) for name, folder in methods.items()}
    wanted = group_settings(fit, canvas)
    found = {name: read_settings(folder) for name, folder in folders.items()}
    for name, folder in folders.items():
        refuse_other_settings(folder, wanted, {key: found[name].get(key) for key in wanted})
    scored: dict[str, dict[str, GroupScores]] = {name: {} for name in folders}
    skipped: dict[str, str] = {}
    absent: dict[str, int] = {}
    with ProgressBar("scoring", total=len(groups), unit="groups") as bar:
        for group in groups:
            bar.advance()
            try:
                views = load_group(manifest, group, fit, canvas=canvas)
                truth = _find_truth(views, group, Path(reference) if reference is not None else None)
            except (DataError, GeometryError) as error:
                logger.warning("group %s is not scored: %s", group.key, error)
                skipped[group.key] = str(error)
                continue
            for name, folder in folders.items():
                path = prediction_path(folder, group)
                if not path.exists():
                    absent[name] = absent.get(name, 0) + 1
                    continue
                scored[name][group.key] = score_group(load_prediction(path), views, truth, cloud_points)
    if absent:
        raise ConfigError(
            "; ".join(f"{folders[name]} lacks {count} of {len(groups)} groups" for name, count in absent.items())
            + ". Run the prediction step again, it goes on where it stopped."
        )
    kept = [group for group in groups if group.key not in skipped]
    if not kept:
        reason = common_reason(skipped) if skipped else "there are none"
        raise DataError(f"not one of {len(groups)} held-out groups can be scored: {reason}")
    protocol = PROTOCOL if reference is None else PROTOCOL.replace("heldout", "agreement")
    if cloud_points != CLOUD_POINTS:
        protocol += f"+cloud{cloud_points}"
    keys = "\n".join(sorted(group.key for group in kept))
    settings = {
        **wanted,
        "num_groups": len(kept),
        "groups_sha256": hashlib.sha256(keys.encode()).hexdigest(),
        "cloud_points": cloud_points,
        "reference": "truth" if reference is None else read_settings(Path(reference))["method"],
    }
    return HeldoutScores(
        protocol=protocol,
        settings=json.loads(json.dumps(settings)),
        methods={name: aggregate(groups_of, found[name]["method"]) for name, groups_of in scored.items()},
        skipped=skipped,
    )


def score_group(prediction: Prediction, views: Views, truth: Truth, cloud_points: int = CLOUD_POINTS) -> GroupScores:
    """Score one prediction (batch of 1) on one group; what cannot be computed is NaN."""
    try:
        whole = complete(prediction, views)
    except GeometryError as error:
        logger.warning("no cameras could be found for a group: %s", error)
        whole = prediction
    depth = _local_depth(prediction, whole)
    world = prediction.pointmap_world if prediction.pointmap_world is not None else whole.pointmap_world
    values = dict.fromkeys(GROUP_MEANS, math.nan)
    missing: list[float] = []
    if depth is not None:
        shown = truth.valid & np.isfinite(depth)
        of_views = [
            depth_scores(depth[view], truth.depth[view], shown[view]) for view in range(len(depth)) if shown[view].any()
        ]
        values["depth_rel"] = mean_of([scores.abs_rel for scores in of_views])
        values["depth_delta1"] = mean_of([scores.delta1 for scores in of_views])
        missing.append(truth.share_missing(shown))
    if world is not None:
        points = world[0].detach().cpu().double().numpy()
        shown = truth.valid & np.isfinite(points).all(axis=-1)
        missing.append(truth.share_missing(shown))
        values["points_error"] = point_scores(points, truth.world, shown, align="scale").relative
        values.update(after_similarity(points[shown], truth.world[shown], cloud_points))
    values["missing"] = max(missing, default=1.0)
    rotation, translation = np.zeros(0), np.zeros(0)
    num_views = len(truth.world_from_camera)
    if whole.world_from_camera is not None:
        poses = whole.world_from_camera[0].detach().cpu().double().numpy()
        rotation, translation = pair_errors(poses, truth.world_from_camera, all_pairs(num_views))
    return GroupScores(
        num_views=num_views,
        values={name: stored(value) for name, value in values.items()},
        rotation_deg=tuple(stored(value) for value in rotation),
        translation_deg=tuple(stored(value) for value in translation),
    )


def _find_truth(views: Views, group: ViewGroup, reference: Path | None) -> Truth:
    if reference is None:
        lacking = missing_truth(views)
        if lacking:
            raise DataError(f"it has no {', '.join(lacking)} to compare with")
        truth = truth_of(views)
    else:
        path = prediction_path(reference, group)
        if not path.exists():
            raise DataError(f"the reference {reference} has no prediction for it")
        said = complete(load_prediction(path), views)
        truth = truth_of(
            Views(
                images=views.images,
                intrinsics=said.intrinsics,
                world_from_camera=said.world_from_camera,
                depth=said.depth,
                valid=views.valid,
            )
        )
    if not truth.valid.any():
        raise DataError("not one pixel has a known depth")
    return truth


def _local_depth(prediction: Prediction, whole: Prediction) -> Float[np.ndarray, "views height width"] | None:
    for source in (prediction.pointmap_camera, prediction.depth, whole.pointmap_camera):
        if source is not None:
            found = source[..., 2] if source.ndim == 5 else source
            depth: Float[np.ndarray, "views height width"] = found[0].detach().cpu().double().numpy()
            return depth
    return None


def after_similarity(
    points: Float[np.ndarray, "count 3"], truth: Float[np.ndarray, "count 3"], cloud_points: int
) -> dict[str, float]:
    """Error, accuracy and completeness after one similarity of all points, over the truth's mean distance."""
    size = float(np.linalg.norm(truth, axis=-1).mean()) if len(truth) else 0.0
    if size == 0:
        return {}
    aligned = fit_similarity(points, truth).apply(torch.from_numpy(points)).numpy()
    step = max(1, math.ceil(len(truth) / cloud_points))
    cloud = cloud_scores(aligned[::step], truth[::step], max_queries=CLOUD_QUERIES)
    return {
        "points_error_sim3": float(np.linalg.norm(aligned - truth, axis=-1).mean()) / size,
        "accuracy": cloud.accuracy / size,
        "completeness": cloud.completeness / size,
    }
