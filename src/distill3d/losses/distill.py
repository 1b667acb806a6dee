"""Confidence-aware distillation of a teacher's pointmaps (Distill3R, equations 1 to 6), and its ablations."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.geometry.normalize import normalize_pointmaps
from distill3d.losses.config import DistillLossConfig
from distill3d.losses.pose import pose_terms
from distill3d.losses.surface import gradient_term, normal_term
from distill3d.losses.terms import LossTerms
from distill3d.types import Prediction, map_tensors


def distill_loss(
    prediction: Prediction,
    target: Prediction,
    valid: Bool[Tensor, "batch views height width"],
    config: DistillLossConfig,
) -> LossTerms:
    """The loss of a student against its teacher, in float32 and outside of any autocast.

    With x and y the maps of student and teacher, s their mean distance to the origin over valid pixels (one s per
    sample for the world maps, one per view for the camera maps), w the weight of a pixel, and means over valid pixels:

        global = mean w |x_world / s(x_world) - y_world / s(y_world)|^2        local = the same of the camera maps
        confidence = 1/2 (mean |c_x - c_y| of the world maps + the same of the camera maps)
        total = alpha_global * global + alpha_local * local + gamma * confidence

    The weight is the teacher's confidence of the same map (`weight_form` "raw"), or min(confidence / 10, 1)
    ("clamped", the authors' code, which also takes the mean of each view first, over the batch: `reduction` "views").
    Gradients pass through s, never through a weight: a student could lower its error there by doubting itself.

    Args:
        prediction: the student's maps.
        target: the teacher's; anything may stand outside `valid`, NaN included. Poses are used by the pose term.
        valid: pixels to learn from. Without any, every term is 0 and so is its gradient.
        config: factors and choices.

    Returns:
        The total, and the terms "global", "local", "confidence" and those switched on.

    Raises:
        ConfigError: a map or confidence that the configuration needs is absent.
    """
    with torch.autocast(valid.device.type, enabled=False):
        prediction, target = map_tensors(prediction, _float32), map_tensors(target, _float32)
        terms: dict[str, Tensor] = {}
        confidence: list[Tensor] = []
        for name, frame in (("global", "world"), ("local", "camera")):
            maps = (getattr(prediction, f"pointmap_{frame}"), getattr(target, f"pointmap_{frame}"))
            own, theirs = (getattr(side, f"confidence_{frame}") for side in (prediction, target))
            alpha = config.alpha_global if frame == "world" else config.alpha_local
            if alpha == 0 and (maps[0] is None or maps[1] is None):
                continue
            squared = _squared_error(*maps, valid, frame, config)
            error = squared if config.error == "squared" else _root(squared)
            terms[name] = _mean(_weight(own, theirs, valid, frame, config) * error, valid, config.reduction)
            if config.confidence_term != "none":
                confidence.append(_confidence_term(own, theirs, _root(squared.detach()), valid, frame, config))
        if confidence:
            terms["confidence"] = torch.stack(confidence).mean()
        factors = {"global": config.alpha_global, "local": config.alpha_local, "confidence": config.gamma}
        if config.pose_weight:
            terms["rotation"], terms["translation"] = pose_terms(prediction, target, valid)
            factors |= {"rotation": config.pose_weight, "translation": config.pose_weight}
        if config.gradient_weight or config.normal_weight:
            own_map, their_map = _both(prediction.pointmap_camera, target.pointmap_camera, "camera pointmap")
            if config.gradient_weight:
                terms["gradient"] = gradient_term(own_map, their_map, valid)
            if config.normal_weight:
                terms["normal"] = normal_term(own_map, their_map, valid)
            factors |= {"gradient": config.gradient_weight, "normal": config.normal_weight}
        total = sum(
            (factors[name] * term for name, term in terms.items()), start=valid.new_zeros((), dtype=torch.float32)
        )
    return LossTerms(total=total, terms={name: term.detach() for name, term in terms.items()})


def _squared_error(
    own: Tensor | None, theirs: Tensor | None, valid: Tensor, frame: str, config: DistillLossConfig
) -> Float[Tensor, "batch views height width"]:
    """Squared distance between the normalised maps; 0 outside the mask."""
    own, theirs = _both(own, theirs, f"{frame} pointmap")
    sides = []
    for points in (own, theirs):
        # Select before dividing: a NaN outside the mask would reach the gradient of the divisor.
        inside = torch.where(valid[..., None], points, 0.0)
        if config.normalise:
            inside, _ = normalize_pointmaps(inside, valid, "sample" if frame == "world" else "view")
        sides.append(inside)
    return (sides[0] - sides[1]).square().sum(dim=-1)


def _weight(
    own: Tensor | None, theirs: Tensor | None, valid: Tensor, frame: str, config: DistillLossConfig
) -> Float[Tensor, "batch views height width"]:
    if config.weight_by == "none":
        return torch.ones(valid.shape, device=valid.device)
    confidence = theirs if config.weight_by == "teacher" else own
    if confidence is None:
        raise ConfigError(
            f"weight_by={config.weight_by!r} needs the {config.weight_by}'s {frame} confidence, which is absent. "
            "Use another teacher, or weight_by='none'."
        )
    chosen = torch.where(valid, confidence.detach(), 0.0)
    if config.weight_form == "clamped":
        return (chosen / config.clamp_at).clamp(0, 1)
    if config.weight_form == "balanced":
        return chosen / _mean(chosen, valid, "pixels").clamp(min=1e-12)
    return chosen


def _confidence_term(
    own: Tensor | None,
    theirs: Tensor | None,
    distance: Float[Tensor, "batch views height width"],
    valid: Tensor,
    frame: str,
    config: DistillLossConfig,
) -> Float[Tensor, ""]:
    if config.confidence_term == "likelihood":
        theirs = own
    own, theirs = _both(own, theirs, f"{frame} confidence")
    # 1 outside the mask: its logarithm is 0 on both sides.
    own, theirs = torch.where(valid, own, 1.0), torch.where(valid, theirs, 1.0)
    if config.confidence_term == "likelihood":
        return _mean(own * distance - config.likelihood_alpha * own.log(), valid, "pixels")
    if config.confidence_term == "log_l1":
        own, theirs = own.log(), theirs.log()
    return _mean((own - theirs).abs(), valid, "pixels")


def _mean(
    values: Float[Tensor, "batch views height width"], valid: Tensor, reduction: Literal["pixels", "views"]
) -> Float[Tensor, ""]:
    """Mean over the valid pixels, or over the views that have some; the values are 0 elsewhere. 0 without pixels."""
    if reduction == "pixels":
        return values.sum() / valid.sum().clamp(min=1)
    counts = valid.sum(dim=(0, 2, 3))
    return (values.sum(dim=(0, 2, 3)) / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def _root(squared: Tensor) -> Tensor:
    # The gradient of a root at 0 is infinite; a perfect point has none.
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


def _both(own: Tensor | None, theirs: Tensor | None, what: str) -> tuple[Tensor, Tensor]:
    if own is None or theirs is None:
        side = "student" if own is None else "teacher"
        raise ConfigError(
            f"The {side} gives no {what}, which this loss compares. Set its factor to 0, or change the {side}."
        )
    return own, theirs


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
