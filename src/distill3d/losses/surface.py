"""Terms that look at neighbouring pixels: edges and slopes of a surface rather than its place."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SCALES = (1, 2, 4, 8)
"""Steps between the neighbours that are compared, in pixels."""
EDGE = 0.1
"""A change of distance between neighbours by more than this share is an edge, where normals mean nothing."""
NEAREST = 1e-4
"""Distances are cut here before their logarithm."""


def gradient_term(
    predicted: Float[Tensor, "batch views height width 3"],
    target: Float[Tensor, "batch views height width 3"],
    valid: Bool[Tensor, "batch views height width"],
) -> Float[Tensor, ""]:
    """Mean error of the change of log-distance between valid neighbours, over x, y and the scales that fit.

    A scale of either map changes nothing. 0 without valid neighbours. NaN outside the mask changes nothing.
    """
    own, theirs = (_log_distance(points, valid) for points in (predicted, target))
    errors: list[Tensor] = []
    for axis in (2, 3):
        for step in SCALES:
            if step >= valid.shape[axis]:
                continue
            near, far = _neighbours(own - theirs, axis, step)
            both = torch.logical_and(*_neighbours(valid, axis, step))
            # Both maps hold the same number outside the mask, so nothing here is NaN.
            changed = torch.where(both, (far - near).abs(), 0.0)
            errors.append(changed.sum() / both.sum().clamp(min=1))
    return torch.stack(errors).mean() if errors else (own - theirs).sum() * 0.0


def normal_term(
    predicted: Float[Tensor, "batch views height width 3"],
    target: Float[Tensor, "batch views height width 3"],
    valid: Bool[Tensor, "batch views height width"],
) -> Float[Tensor, ""]:
    """Mean of 1 - cosine between the normals of both surfaces, away from the target's edges; 0 where there are none."""
    own, theirs = (torch.where(valid[..., None], points, 0.0) for points in (predicted, target))
    distance = torch.linalg.vector_norm(theirs, dim=-1)
    corner, right, down = (slice(-1), slice(-1)), (slice(-1), slice(1, None)), (slice(1, None), slice(-1))
    use = valid[:, :, *corner] & valid[:, :, *right] & valid[:, :, *down]
    for side in (right, down):
        jump = (distance[:, :, *side] - distance[:, :, *corner]).abs()
        use = use & (jump < EDGE * distance[:, :, *corner])
    normals = []
    for points in (own, theirs):
        edges = [(points[:, :, *side] - points[:, :, *corner])[use] for side in (right, down)]
        normals.append(torch.nn.functional.normalize(torch.linalg.cross(*edges), dim=-1, eps=1e-12))
    # A flat triangle has no normal: its cosine is 0, and it is left out.
    told = normals[1].abs().sum(dim=-1) > 0
    cosine = (normals[0] * normals[1]).sum(dim=-1)[told]
    return (1 - cosine).sum() / max(len(cosine), 1)


def _log_distance(points: Tensor, valid: Tensor) -> Float[Tensor, "batch views height width"]:
    inside = torch.where(valid[..., None], points, 1.0)
    logarithm: Tensor = torch.linalg.vector_norm(inside, dim=-1).clamp(min=NEAREST).log()
    return logarithm


def _neighbours(values: Tensor, axis: int, step: int) -> tuple[Tensor, Tensor]:
    length = values.shape[axis] - step
    return values.narrow(axis, 0, length), values.narrow(axis, step, length)
