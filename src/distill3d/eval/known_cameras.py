"""How far the cameras of a reconstruction are from those that are known."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from distill3d.errors import GeometryError
from distill3d.eval.metrics.poses import all_pairs, auc, pair_errors, reference_pairs, worst_angle
from distill3d.geometry.align import umeyama
from distill3d.types import Reconstruction, Views


def known_camera_errors(reconstruction: Reconstruction, truth: Views) -> dict[str, Any]:
    """Compare the estimated cameras with known ones, as plain values; empty where nothing is known.

    Angles in degrees: `to_view_0` lists one rotation error per view after the first, the others are taken over all
    pairs. The positions are compared after the best similarity of all camera centres (from three views on), as a share
    of the true centres' mean distance from their middle. `focal_percent` is the median deviation of the focal length.
    Nothing of the truth is used for the reconstruction itself.
    """
    found: dict[str, Any] = {}
    prediction = reconstruction.prediction
    if truth.world_from_camera is not None and prediction.world_from_camera is not None:
        ours = prediction.world_from_camera[0].double().cpu().numpy()
        true = truth.world_from_camera[0].double().cpu().numpy()
        count = len(true)
        rotation, translation = pair_errors(ours, true, all_pairs(count))
        to_first, _ = pair_errors(ours, true, reference_pairs(count))
        known = translation[~np.isnan(translation)]
        found |= {
            "num_views": count,
            "num_pairs": len(rotation),
            "rotation_median_deg": _round(np.median(rotation)) if len(rotation) else None,
            "rotation_max_deg": _round(rotation.max()) if len(rotation) else None,
            "translation_median_deg": _round(np.median(known)) if len(known) else None,
            "auc_30": _round(auc(worst_angle(rotation, translation), 30)) if len(rotation) else None,
            "rotation_to_view_0_deg": [_round(value) for value in to_first],
            "position_error": _position_error(ours[:, :3, 3], true[:, :3, 3]),
        }
    if truth.intrinsics is not None and prediction.intrinsics is not None:
        focal = prediction.intrinsics[0, :, 0, 0].double().cpu() / truth.intrinsics[0, :, 0, 0].double().cpu()
        found["focal_percent"] = _round(float((focal - 1).abs().median()) * 100)
    return found


def _position_error(ours: Float[np.ndarray, "views 3"], true: Float[np.ndarray, "views 3"]) -> float | None:
    """Root mean square distance after a similarity, over the spread of the true centres; None where undetermined."""
    spread = float(np.linalg.norm(true - true.mean(axis=0), axis=-1).mean())
    if len(true) < 3 or spread == 0 or not np.isfinite(ours).all():
        return None
    try:
        fit = umeyama(torch.from_numpy(ours)[None], torch.from_numpy(true)[None])
    except GeometryError:
        return None  # centres on one line, or all at one place
    moved = fit.apply(torch.from_numpy(ours)[None])[0].numpy()
    return _round(math.sqrt(float(np.square(moved - true).sum(axis=-1).mean())) / spread)


def _round(value: Any) -> float:
    return round(float(value), 4)
