"""What a student says about groups it was not trained on: loss, depth, rotations. Cheap, for watching a run."""

import logging
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distill3d.errors import GeometryError
from distill3d.geometry.align import align_maps
from distill3d.geometry.poses import rotation_angle
from distill3d.losses.distill import distill_loss
from distill3d.train.config import DistillConfig
from distill3d.train.job import Seen
from distill3d.train.pictures import depth_of, draw_validation
from distill3d.train.samples import Batch
from distill3d.train.students import predict
from distill3d.types import Prediction, map_tensors, to_device

logger = logging.getLogger(__name__)


@torch.no_grad()
def validate(
    student: nn.Module,
    batches: Iterable[Batch],
    config: DistillConfig,
    device: torch.device,
    dtype: torch.dtype | None,
    *,
    pictures: Path | None = None,
    step: int = 0,
) -> Seen:
    """Score batches; the first samples are drawn into the folder `pictures`.

    Scores are the mean loss and its terms and, against the teacher, `depth_rel` (medians of a view matched) and the
    median `rotation_deg`. The student is put back into the mode it came in.
    """
    was_training = student.training
    student.eval()
    sums: dict[str, list[float]] = {}
    angles: list[Tensor] = []
    drawn: list[Path] = []
    for batch in batches:
        views, target = to_device(batch.views, device), to_device(batch.target, device)
        valid = batch.valid.to(device)
        prediction = predict(student, views.images, seed=batch.seed, dtype=dtype, head_chunk=config.head_chunk)
        terms = distill_loss(prediction, target, valid, config.loss)
        found = {"loss": terms.total, **terms.terms}
        depth = depth_of(prediction), depth_of(target)
        if depth[0] is not None and depth[1] is not None:
            found["depth_rel"] = relative_depth_error(depth[0], depth[1], valid)
        for name, value in found.items():
            sums.setdefault(name, []).append(float(value))
        angles.append(rotation_errors(prediction, target, valid))
        if pictures is not None and len(drawn) < config.validation.pictures:
            path = pictures / f"step-{step:07d}-{len(drawn)}.png"
            if _draw(path, batch, prediction, step):
                drawn.append(path)
    student.train(was_training)
    scores = {name: sum(values) / len(values) for name, values in sums.items()}
    all_angles = torch.cat(angles) if angles else torch.zeros(0)
    if all_angles.numel():
        scores["rotation_deg"] = math.degrees(all_angles.median().item())
    return Seen(scores, drawn)


def relative_depth_error(
    predicted: Float[Tensor, "batch views height width"],
    target: Float[Tensor, "batch views height width"],
    valid: Bool[Tensor, "batch views height width"],
) -> Float[Tensor, ""]:
    """Mean of |d - d*| / d* over the valid pixels, each view scaled by the median of d* / d."""
    errors: list[Tensor] = []
    for ours, theirs, mask in zip(predicted.flatten(0, 1), target.flatten(0, 1), valid.flatten(0, 1), strict=True):
        mask = mask & (theirs > 0)
        if mask.any():
            d, truth = ours[mask].clamp(min=1e-6), theirs[mask]
            errors.append(((truth / d).median() * d / truth - 1).abs().mean())
    return torch.stack(errors).mean() if errors else predicted.new_tensor(math.nan)


def rotation_errors(
    prediction: Prediction, target: Prediction, valid: Bool[Tensor, "batch views height width"]
) -> Float[Tensor, " pairs"]:
    """Angles between predicted and target rotation of each view relative to view 0, in radians; none if unknown."""
    ours, theirs = _rotations(prediction, valid), _rotations(target, valid)
    if ours is None or theirs is None or valid.shape[1] < 2:
        return valid.new_zeros(0, dtype=torch.float32)
    relative = [rotation[:, :1].transpose(-1, -2) @ rotation[:, 1:] for rotation in (ours, theirs)]
    return rotation_angle(relative[0], relative[1]).flatten().float().cpu()


def _rotations(prediction: Prediction, valid: Tensor) -> Float[Tensor, "batch views 3 3"] | None:
    if prediction.world_from_camera is not None:
        return prediction.world_from_camera[..., :3, :3].float()
    local, world = prediction.pointmap_camera, prediction.pointmap_world
    if local is None or world is None:
        return None
    weight = torch.ones_like(local[..., 0]) if prediction.confidence_world is None else prediction.confidence_world
    try:
        return align_maps(local, world, weight, valid).rotation.float()
    except GeometryError as error:
        logger.debug("no rotations for this group: %s", error)
        return None


def _draw(path: Path, batch: Batch, prediction: Prediction, step: int) -> bool:
    student, teacher = depth_of(map_tensors(prediction, lambda value: value[:1].float().cpu())), depth_of(batch.target)
    if student is None or teacher is None:
        return False
    mask = batch.valid[0] & (teacher[0] > 0)
    if not mask.any():
        return False
    scale = (teacher[0][mask] / student[0][mask].clamp(min=1e-6)).median()
    confidence = prediction.confidence_camera if prediction.confidence_world is None else prediction.confidence_world
    draw_validation(
        path,
        batch.views.images[0],
        teacher[0],
        student[0] * scale,
        None if confidence is None else confidence[0].float().cpu(),
        mask,
        f"step {step} · {batch.keys[0]}",
    )
    return True
