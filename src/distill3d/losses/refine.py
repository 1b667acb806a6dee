"""The two parts of Fin3R's loss: depth after a monocular teacher, and pointmaps of replayed views."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.geometry.normalize import normalize_pointmaps
from distill3d.losses.config import RefineLossConfig
from distill3d.losses.surface import gradient_term, normal_term
from distill3d.losses.terms import LossTerms

SMALLEST = 1e-6
"""Divisors and depths below this count as this."""


def depth_distillation(
    depth: Float[Tensor, "batch views height width"],
    confidence: Float[Tensor, "batch views height width"] | None,
    teacher: Float[Tensor, "batch views height width 3"],
    valid: Bool[Tensor, "batch views height width"],
    config: RefineLossConfig,
) -> LossTerms:
    """The network's depth against a monocular teacher's, view by view, in float32 and outside of any autocast.

        depth = mean over valid pixels of  beta |a D + b - D_teacher|^2 - lambda log beta

    Both sides are in units of the teacher's mean depth over the valid pixels of the view; a and b are the alignment.

    Args:
        depth: the network's z-depth.
        confidence: beta, above 0; None weighs every pixel alike.
        teacher: points in each view's camera frame; anything may stand outside `valid`.
        valid: pixels that the teacher vouches for: no sky, no padding, nothing behind the camera.
        config: alignment, error, lambda and the extra terms.

    Returns:
        The total, and the terms "depth", "gradient" and "normal" (those switched on).
    """
    with torch.autocast(valid.device.type, enabled=False):
        valid = valid & (teacher[..., 2] > 0)
        theirs = torch.where(valid, teacher[..., 2].float(), 0.0)
        count = valid.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        unit = (theirs.sum(dim=(2, 3), keepdim=True) / count).clamp(min=SMALLEST)
        theirs = theirs / unit
        ours = align_depth(torch.where(valid, depth.float(), 0.0), theirs, valid, config.align, unit)
        residual = torch.where(valid, ours - theirs, 0.0)
        error = residual.square() if config.error == "squared" else residual.abs()
        terms = {"depth": confident_mean(error, confidence, valid, config.confidence_lambda)}
        total = terms["depth"]
        if config.gradient_weight or config.normal_weight:
            # Both surfaces on the teacher's rays: they differ in depth alone.
            rays = teacher.float() / torch.where(valid, teacher[..., 2].float(), 1.0)[..., None]
            rays = torch.where(valid[..., None], rays, 0.0)
            own, target = (rays * side.clamp(min=SMALLEST)[..., None] for side in (ours, theirs))
            if config.gradient_weight:
                terms["gradient"] = gradient_term(own, target, valid)
                total = total + config.gradient_weight * terms["gradient"]
            if config.normal_weight:
                terms["normal"] = normal_term(own, target, valid)
                total = total + config.normal_weight * terms["normal"]
    return LossTerms(total=total, terms={name: term.detach() for name, term in terms.items()})


def align_depth(
    depth: Float[Tensor, "batch views height width"],
    teacher: Float[Tensor, "batch views height width"],
    valid: Bool[Tensor, "batch views height width"],
    method: str,
    unit: Float[Tensor, "batch views 1 1"] | None = None,
) -> Float[Tensor, "batch views height width"]:
    """Bring depth nearest to the teacher's by least squares over the valid pixels of each view; differentiable.

    Because the gradient passes through the solution, it has no part that only changes what the alignment takes out.

    Args:
        depth: 0 outside the mask.
        teacher: likewise.
        valid: pixels that count.
        method: "scale", "scale_shift" or "none".
        unit: for "none", what the teacher was divided by.
    """
    if method == "none":
        return depth if unit is None else depth / unit

    def total(values: Tensor) -> Float[Tensor, "batch views 1 1"]:
        return values.sum(dim=(2, 3), keepdim=True)

    if method == "scale":
        return depth * (total(depth * teacher) / total(depth.square()).clamp(min=SMALLEST))
    count = total(valid.to(depth.dtype)).clamp(min=1)
    ours, theirs = total(depth) / count, total(teacher) / count
    spread = torch.where(valid, depth - ours, 0.0)
    scale = total(spread * (teacher - theirs)) / total(spread.square()).clamp(min=SMALLEST)
    return scale * (depth - ours) + theirs


def pointmap_replay(
    points: Float[Tensor, "batch views height width 3"],
    confidence: Float[Tensor, "batch views height width"] | None,
    truth: Float[Tensor, "batch views height width 3"],
    valid: Bool[Tensor, "batch views height width"],
    config: RefineLossConfig,
) -> Float[Tensor, ""]:
    """World points of replayed views against the truth: mean of beta |P - P*|^2 - lambda log beta, in float32.

    Both are divided by their mean distance to the origin over the valid pixels of the sample (`normalise_replay`).
    """
    with torch.autocast(valid.device.type, enabled=False):
        # Select before dividing: a NaN outside the mask would reach the gradient of the divisor.
        sides = [torch.where(valid[..., None], side.float(), 0.0) for side in (points, truth)]
        if config.normalise_replay:
            sides = [normalize_pointmaps(side, valid, "sample")[0] for side in sides]
        squared = (sides[0] - sides[1]).square().sum(dim=-1)
        error = squared if config.error == "squared" else torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)
        return confident_mean(error, confidence, valid, config.confidence_lambda)


def confident_mean(
    error: Float[Tensor, "batch views height width"],
    confidence: Float[Tensor, "batch views height width"] | None,
    valid: Bool[Tensor, "batch views height width"],
    confidence_lambda: float,
) -> Float[Tensor, ""]:
    """Mean over the valid pixels of beta * error - lambda log beta (Kendall and Gal; DUSt3R, eq. 4); 0 without any.

    The error is 0 outside the mask. None for the confidence gives the plain mean.
    """
    count = valid.sum().clamp(min=1)
    if confidence is None:
        return error.sum() / count
    beta = torch.where(valid, confidence.float(), 1.0).clamp(min=SMALLEST)  # log 1 = 0 outside the mask
    return (beta * error - confidence_lambda * beta.log()).sum() / count
