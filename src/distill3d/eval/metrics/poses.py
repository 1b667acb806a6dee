"""Pose metrics over pairs of views: angles of relative rotation and translation, recall, and the AUC variants."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from distill3d.geometry.poses import relative_pose, rotation_angle, translation_angle

TranslationVariant = Literal["signed", "folded"]
"""signed: [0, 180] degrees (Reloc3r). folded: min(angle, 180 - angle), for methods whose sign is not determined."""
RotationVariant = Literal["exact", "extrapolated"]
"""exact: sine and cosine. extrapolated (Fast3R): the arc cosine of the trace goes on as its tangent within 1e-4 of +-1,

which changes errors below 0.8 degrees."""
AucVariant = Literal["trapezoid", "binned", "histogram"]
"""trapezoid: area under recall over error (SuperGlue, Reloc3r). binned: one-degree bins (VGGT, Pi3).

histogram: T + 1 bins over [0, T] (Fast3R's mAA). Numbers of different variants must not be compared.
"""


def all_pairs(num_views: int) -> list[tuple[int, int]]:
    """Give every pair (i, j) with i < j."""
    return list(combinations(range(num_views), 2))


def reference_pairs(num_views: int) -> list[tuple[int, int]]:
    """Give view 0 with every other view."""
    return [(0, view) for view in range(1, num_views)]


def pair_errors(
    predicted: Float[np.ndarray, "views 4 4"],
    truth: Float[np.ndarray, "views 4 4"],
    pairs: Sequence[tuple[int, int]],
    *,
    translation: TranslationVariant = "signed",
    rotation: RotationVariant = "exact",
) -> tuple[Float[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
    """Give the angles in degrees between predicted and true relative rotation, and between the relative translations.

    Both worlds and both scales may differ: only `i_from_j` of each is compared. Where the two true cameras stand at one
    place the translation has no direction: NaN. Where only the predicted ones do, nothing was said: 90 degrees.

    Args:
        predicted: `world_from_camera`.
        truth: `world_from_camera`.
        pairs: (i, j); the order matters little, but does matter for translations: VGGT and Pi3 look at `j_from_i`, so
            give them (j, i).
        translation: see `TranslationVariant`.
        rotation: see `RotationVariant`.
    """
    if not pairs:
        return np.zeros(0), np.zeros(0)
    first: Int[np.ndarray, " pairs"] = np.array([i for i, _ in pairs])
    second: Int[np.ndarray, " pairs"] = np.array([j for _, j in pairs])
    both = [torch.from_numpy(np.asarray(poses, dtype=np.float64)) for poses in (predicted, truth)]
    ours, true = (relative_pose(poses[first], poses[second]) for poses in both)
    measure = rotation_angle if rotation == "exact" else _extrapolated_angle
    turned = torch.rad2deg(measure(ours[:, :3, :3], true[:, :3, :3])).numpy()
    angle = torch.rad2deg(translation_angle(ours[:, :3, 3], true[:, :3, 3])).numpy()
    if translation == "folded":
        angle = np.minimum(angle, 180 - angle)
    angle = np.where((ours[:, :3, 3] == 0).all(dim=-1).numpy(), 90.0, angle)
    return turned, np.where((true[:, :3, 3] == 0).all(dim=-1).numpy(), np.nan, angle)


def _extrapolated_angle(a: Float[torch.Tensor, "pairs 3 3"], b: Float[torch.Tensor, "pairs 3 3"]) -> torch.Tensor:
    """Angle between rotations in radians by an arc cosine that goes on as a straight line near its ends (Fast3R)."""
    cosine = ((a.transpose(-1, -2) @ b).diagonal(dim1=-2, dim2=-1).sum(dim=-1) - 1) / 2
    bound = 1 - 1e-4
    inside = cosine.clamp(-bound, bound)
    slope = -1 / math.sqrt(1 - bound**2)
    return torch.acos(inside) + slope * (cosine - inside)


def recall(errors: Float[np.ndarray, " pairs"], threshold: float) -> float:
    """Give the share of errors below the threshold (RRA of rotations, RTA of translations); NaN ones are left out."""
    known = errors[~np.isnan(errors)]
    return float((known < threshold).mean()) if len(known) else math.nan


def auc(errors: Float[np.ndarray, " pairs"], threshold: float, variant: AucVariant = "trapezoid") -> float:
    """Give the area under the share of errors up to the threshold, in [0, 1]; NaN errors are left out, inf ones fail.

    Take the larger of rotation and translation error of each pair for the usual pose AUC.
    """
    known = np.sort(errors[~np.isnan(errors)].astype(np.float64))
    if len(known) == 0:
        return math.nan
    if variant == "trapezoid":
        error = np.concatenate([[0.0], known])
        share = np.arange(len(error)) / len(known)
        last = int(np.searchsorted(error, threshold))
        error = np.concatenate([error[:last], [threshold]])
        share = np.concatenate([share[:last], [share[last - 1]]])
        return float(np.trapezoid(share, error)) / threshold
    bins = round(threshold) if variant == "binned" else round(threshold) + 1
    counts, _ = np.histogram(known, bins=bins, range=(0, threshold))
    return float((np.cumsum(counts) / len(known)).mean())


def worst_angle(
    rotation: Float[np.ndarray, " pairs"], translation: Float[np.ndarray, " pairs"]
) -> Float[np.ndarray, " pairs"]:
    """Give the larger error of each pair; where the translation has no direction, the rotation's."""
    worst: Float[np.ndarray, " pairs"] = np.fmax(rotation, translation)
    return worst
