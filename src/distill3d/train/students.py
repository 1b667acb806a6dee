"""The network that is trained: made fresh or from weights, started at the mean of its labels, and run on a batch."""

import functools
import inspect
import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill3d import checkpoints, models
from distill3d.errors import ConfigError
from distill3d.geometry.normalize import normalize_pointmaps
from distill3d.nn.activations import ray_grid
from distill3d.train.config import DistillConfig
from distill3d.train.order import seed_of
from distill3d.train.samples import Batch
from distill3d.types import Prediction, map_tensors

logger = logging.getLogger(__name__)

MEAN_BATCHES = 64
"""At most so many batches are averaged for the start at the mean map."""


def build_student(config: DistillConfig) -> nn.Module:
    """A fresh network of the configuration, on the CPU; its weights depend on the seed alone.

    Raises:
        ConfigError: no such architecture or variant, or one that cannot recompute activations when asked to.
    """
    spec = models.get(config.student)
    model_config = spec.variant(config.variant)
    if config.gradient_checkpointing:
        known = is_dataclass(model_config) and "gradient_checkpointing" in {item.name for item in fields(model_config)}
        if not known:
            raise ConfigError(f"{config.student} has no gradient checkpointing. Set gradient_checkpointing to False.")
        model_config = replace(model_config, gradient_checkpointing=True)
    generator = torch.Generator().manual_seed(seed_of(config.seed, "weights"))
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(config.seed, "weights"))
        options = {"generator": generator} if "generator" in _parameters(spec.build) else {}
        build: Callable[..., nn.Module] = spec.build
        return build(model_config, **options)


def load_initial_weights(student: nn.Module, config: DistillConfig) -> None:
    """Take up the weights that the configuration starts from, if any.

    Raises:
        CheckpointError: they cannot be read, or do not fit the architecture.
        ConfigError: the network has no encoder to load.
    """
    if config.initial_weights is not None:
        loaded = checkpoints.load_model(config.student, weights=config.initial_weights, variant=config.variant)
        checkpoints.load_strict(student, loaded.state_dict(), source=config.initial_weights)
    if config.pretrained_encoder is not None:
        encoder = getattr(student, "encoder", None)
        if not isinstance(encoder, nn.Module):
            raise ConfigError(f"{config.student} has no encoder of its own. Leave pretrained_encoder away.")
        family = checkpoints.load_encoder(encoder, config.pretrained_encoder)
        logger.info("the encoder starts from %s (%s)", config.pretrained_encoder, family)


def predict(
    student: nn.Module,
    images: Float[Tensor, "batch views 3 height width"],
    *,
    seed: int,
    dtype: torch.dtype | None,
    head_chunk: int | None,
) -> Prediction:
    """Run the network in the given type, and return float32 maps; what it draws (view ids, dropout) follows `seed`."""
    torch.manual_seed(seed)
    inner = student.module if isinstance(student, DistributedDataParallel) else student
    known = _parameters(type(inner).forward)
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed), "head_chunk": head_chunk}
    with torch.autocast(images.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        prediction: Prediction = student(images, **{name: value for name, value in options.items() if name in known})
    return map_tensors(prediction, lambda value: value.float() if value.is_floating_point() else value)


def start_at_mean(student: nn.Module, batches: Iterable[Batch], *, normalise: bool = True) -> None:
    """Let a fresh network begin by predicting the mean of its labels, as far as its heads can.

    With `normalise` each label is brought to size 1 first, as a loss that ignores the scale does.

    Raises:
        ConfigError: the network has no such start, or the images differ in size.
    """
    from distill3d.models.distill3r import Distill3R, initialise_heads_

    if not isinstance(student, Distill3R):
        raise ConfigError(f"{type(student).__name__} has no start at the mean map. Set mean_map_start to False.")
    world, log_depth, slope, log_confidence = _mean_labels(batches, normalise)
    initialise_heads_(
        student,
        mean_world=world,
        mean_log_depth=log_depth,
        tan_half_fov=slope,
        mean_log_confidence=log_confidence,
    )


def _mean_labels(batches: Iterable[Batch], normalise: bool) -> tuple[Tensor, Tensor, float, float]:
    """Mean world map and log-depth, tangent of half the angle of view, log(confidence - 1)."""
    world_sum = log_sum = count = torch.zeros(())
    over = under = 0.0
    confidences: list[float] = []
    for number, batch in enumerate(itertools.islice(batches, MEAN_BATCHES)):
        world, local = batch.target.pointmap_world, batch.target.pointmap_camera
        if world is None or local is None:
            raise ConfigError("The cache has no world and local pointmaps. Set mean_map_start to False.")
        if number and world.shape[2:4] != log_sum.shape:
            raise ConfigError("The images of the cache differ in size. Set mean_map_start to False.")
        valid = batch.valid & (local[..., 2] > 0)
        if normalise:
            world, _ = normalize_pointmaps(world, valid, "sample")
            local, _ = normalize_pointmaps(local, valid, "view")
        safe = torch.where(valid[..., None], local, torch.ones(()))
        world_sum = world_sum + torch.where(valid[..., None], world, 0.0).sum(dim=(0, 1))
        log_sum = log_sum + safe[..., 2].log().masked_fill(~valid, 0.0).sum(dim=(0, 1))
        count = count + valid.sum(dim=(0, 1))
        grid = ray_grid(*local.shape[2:4])
        slopes = safe[..., :2] / safe[..., 2:]
        over += float((slopes * grid)[valid].sum())
        under += float(grid.square().expand_as(slopes)[valid].sum())
        confidence = batch.target.confidence_world
        if confidence is not None and bool(valid.any()):
            confidences.append(float((confidence[valid] - 1).clamp(min=0.05).log().mean()))
    # A pixel that is never valid (a corner of padding) takes the mean of the others.
    seen = count.clamp(min=1)
    world_mean, log_mean = world_sum / seen[..., None], log_sum / seen
    empty = count == 0
    if bool(empty.any()) and not bool(empty.all()):
        world_mean[empty], log_mean[empty] = world_mean[~empty].mean(dim=0), log_mean[~empty].mean()
    slope = over / under if under > 0 and over > 0 else 0.6
    return world_mean, log_mean, slope, sum(confidences) / len(confidences) if confidences else 0.0


@functools.cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
