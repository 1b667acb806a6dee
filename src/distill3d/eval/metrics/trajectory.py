"""Camera trajectories: absolute and relative errors after one similarity of all positions (Sturm et al., 2012)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from distill3d.geometry.align import Similarity
from distill3d.geometry.poses import invert_pose, project_to_rotation, rotation_angle


@dataclass(frozen=True, kw_only=True)
class TrajectoryScores:
    """Root mean squares over the frames of one sequence, in units of the truth."""

    ate: float
    """Of the distances between positions."""
    rpe_translation: float
    """Of the length of what is left of every step from one frame to the next."""
    rpe_rotation_deg: float
    """Of its angle."""
    scale: float
    """That the predicted positions were multiplied by."""
    errors: Float[np.ndarray, " frames"]
    """Distance of every position."""
    num_frames: int


def trajectory_scores(
    predicted: Float[np.ndarray, "frames 4 4"], truth: Float[np.ndarray, "frames 4 4"], *, with_scale: bool = True
) -> TrajectoryScores:
    """Compare two trajectories, frame by frame, after the similarity (or rigid motion) that fits the positions best.

    Where the positions leave the rotation open (two of them, or all on a line) one of the best rotations is taken: ATE
    and both RPE are the same for all of them. A prediction that stands still has scale 1. Frames whose pose is not
    finite on either side are left out; NaN where fewer than two are left.

    Args:
        predicted: `world_from_camera`.
        truth: `world_from_camera`.
        with_scale: False where the prediction is in metres.
    """
    known = np.isfinite(predicted).all(axis=(1, 2)) & np.isfinite(truth).all(axis=(1, 2))
    ours, true = (torch.from_numpy(poses[known].astype(np.float64)) for poses in (predicted, truth))
    if len(ours) < 2:
        nan = math.nan
        return TrajectoryScores(
            ate=nan, rpe_translation=nan, rpe_rotation_deg=nan, scale=nan, errors=np.zeros(0), num_frames=len(ours)
        )
    fit = _fit(ours[:, :3, 3], true[:, :3, 3], with_scale)
    moved = ours.clone()
    moved[:, :3, :3] = fit.rotation @ ours[:, :3, :3]
    moved[:, :3, 3] = fit.apply(ours[:, :3, 3])
    errors = torch.linalg.vector_norm(moved[:, :3, 3] - true[:, :3, 3], dim=-1)
    steps, true_steps = (invert_pose(poses[:-1]) @ poses[1:] for poses in (moved, true))
    left = invert_pose(true_steps) @ steps
    drift = torch.linalg.vector_norm(left[:, :3, 3], dim=-1)
    turn = torch.rad2deg(rotation_angle(torch.eye(3, dtype=torch.float64).expand(len(left), 3, 3), left[:, :3, :3]))
    return TrajectoryScores(
        ate=_rms(errors),
        rpe_translation=_rms(drift),
        rpe_rotation_deg=_rms(turn),
        scale=float(fit.scale),
        errors=errors.numpy(),
        num_frames=len(ours),
    )


def _fit(source: Float[torch.Tensor, "frames 3"], target: Float[torch.Tensor, "frames 3"], scaled: bool) -> Similarity:
    """Umeyama's similarity, also where the positions leave the rotation open."""
    x, y = source - source.mean(dim=0), target - target.mean(dim=0)
    covariance = y.T @ x
    rotation = project_to_rotation(covariance)
    spread = float(x.square().sum())
    scale = (rotation * covariance).sum() / spread if scaled and spread > 0 else torch.ones((), dtype=torch.float64)
    return Similarity(
        scale=scale, rotation=rotation, translation=target.mean(dim=0) - scale * (rotation @ source.mean(dim=0))
    )


def _rms(values: Float[torch.Tensor, " count"]) -> float:
    return math.sqrt(float(values.square().mean()))


def associate(
    times: Float[np.ndarray, " count"], others: Float[np.ndarray, " other"], max_difference: float
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Pair every time stamp with the nearest of another clock; those farther apart than `max_difference` stay alone.

    Gives indices into both, in the order of `times`. One other stamp may serve two of them.
    """
    if len(times) == 0 or len(others) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    order = np.argsort(others, kind="stable")
    after = np.searchsorted(others[order], times).clip(1, max(len(others) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(others) - 1)
    nearer = np.where(np.abs(others[order][before] - times) <= np.abs(others[order][after] - times), before, after)
    near = np.abs(others[order][nearer] - times) <= max_difference
    return np.flatnonzero(near), order[nearer][near]
