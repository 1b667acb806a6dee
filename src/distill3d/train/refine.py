"""Refining (Fin3R): adapters in the encoder of a finished network learn fine geometry from a monocular teacher."""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill3d import checkpoints, models
from distill3d.adapters.config import rule_named
from distill3d.adapters.files import FILE, save_adapter
from distill3d.adapters.lora import adapter_state, add_lora
from distill3d.checkpoints import LoadedInfo
from distill3d.errors import ConfigError
from distill3d.files import PathLike
from distill3d.losses.refine import depth_distillation, pointmap_replay
from distill3d.losses.terms import LossTerms
from distill3d.train.bases import base_of, encoder_of, view_depth, world_points
from distill3d.train.features import EncoderWatch
from distill3d.train.job import Job, Seen
from distill3d.train.loop import TrainSummary, run_job
from distill3d.train.mixing import MixedBatch
from distill3d.train.order import seed_of
from distill3d.train.photos import ask
from distill3d.train.provenance import git_commit, versions
from distill3d.train.refine_config import RefineConfig
from distill3d.train.refine_data import REPLAY, RefineData, RefineSources
from distill3d.train.refine_watch import RefineWatch, camera_points
from distill3d.train.resume import plain
from distill3d.train.samples import Batch
from distill3d.train.students import predict
from distill3d.types import Prediction, Views, to_device

logger = logging.getLogger(__name__)

FEATURES = (
    "feature_norm",
    "feature_norm_pre",
    "feature_norm_base",
    "feature_norm_pre_base",
    "feature_cosine",
    "feature_shift",
)
"""Logged beside the loss; see `EncoderWatch`."""


def finetune(
    config: RefineConfig, sources: RefineSources, out: PathLike, *, resume: PathLike | None = None
) -> TrainSummary:
    """Refine a network into the run folder `out`.

    The folder gets `adapter.safetensors` besides what every run has; `validation` records hold the scores of the frozen
    base too, under the same names with `_base` behind them. See `run_job` for several processes and repeatability.

    Args:
        config: all settings; see `refine_recipes`.
        sources: photos with a teacher, views to replay.
        out: the run folder; it must be new or empty unless the run is resumed in it.
        resume: a run folder (its newest checkpoint) or one checkpoint to go on from.

    Raises:
        CacheError, DataError: data that cannot be read.
        ConfigError, CheckpointError, OutputError, KeyboardInterrupt: as for `run_job`.
    """
    return run_job(RefineJob(config, sources), out, resume=resume)


class RefineJob(Job):
    """A frozen network with adapters, and the data it is refined on."""

    config: RefineConfig
    weights = FILE
    # Where the base lies may change; its hash is part of the identity.
    free = ("weights",)

    def __init__(self, config: RefineConfig, sources: RefineSources) -> None:
        """Open the data and find how many steps the epochs make.

        Raises:
            CacheError: a cache that cannot be read.
            ConfigError: a network that cannot be refined, or nothing to learn from.
        """
        self.base = base_of(config.base)
        self.data = RefineData(sources, config, self.base)
        self.batches = self.data.batches
        if config.epochs is not None:
            world = int(os.environ.get("WORLD_SIZE", "1"))
            per_step = config.accumulation * world
            config = replace(config, steps=max(1, round(config.epochs * len(self.batches) / per_step)))
        self.config = replace(config, mix=self.data.mix)
        self._rule = rule_named(config.lora.renormalise)
        likelihood = config.loss.likelihood
        self._likelihood = self.base.likelihood if likelihood is None else likelihood
        self._info = LoadedInfo(model=config.base, source=None)
        self._watch = RefineWatch(self.data, self.base, config)
        self.watched = self._watch.has_any
        parts = " and ".join(f"{source.per_epoch} batches of {source.name}" for source in self.batches.sources)
        self.title = f"{config.base} with {self._rule} adapters; an epoch has {parts}"
        self.identity = self.data.identity

    def build(self) -> nn.Module:
        """The base with adapters that change nothing yet.

        Raises:
            CheckpointError: the weights of the base cannot be found or do not fit.
            ConfigError: no such variant, or targets that find no layers.
        """
        config, spec = self.config, models.get(self.config.base)
        model, self._info = checkpoints.load_with_info(config.base, config.weights, config.variant)
        self.identity = {**self.data.identity, "base": sorted(self._info.sha256.values())}
        if config.gradient_checkpointing:
            recompute_activations(model)
        targets = config.lora.targets or spec.lora_targets
        if targets is None:
            raise ConfigError(f"{config.base} does not say where adapters go. Set lora.targets.")
        generator = torch.Generator().manual_seed(seed_of(config.seed, "adapters"))
        names = add_lora(
            model, targets, config.lora.rank, config.lora.alpha, config.lora.renormalise, generator=generator
        )
        trained = sum(tensor.numel() for tensor in adapter_state(model).values())
        logger.info("%d layers adapted, %s parameters learn, e.g. in %s", len(names), f"{trained:,}", names[0])
        return model

    def train_mode(self, model: nn.Module) -> None:
        """All of it stays frozen and in eval mode; there is nothing in an adapter that a mode would change."""
        model.eval()

    def loss(
        self, model: nn.Module, batch: MixedBatch, device: torch.device, dtype: torch.dtype | None, step: int
    ) -> LossTerms:
        """Depth after the teacher on every sample; world points of replayed views."""
        config, inner = self.config, model.module if isinstance(model, DistributedDataParallel) else model
        sample: Batch = batch.batch
        views, valid = to_device(sample.views, device), sample.valid.to(device)
        target, valid = self._target(sample, views, valid)
        with EncoderWatch(encoder_of(inner, self.base)) as watch:
            prediction = predict(model, views.images, seed=sample.seed, dtype=dtype, head_chunk=config.head_chunk)
        depth, confidence = view_depth(prediction, self.base)
        seen = depth.shape[1]
        found = depth_distillation(
            depth,
            confidence if self._likelihood else None,
            camera_points(target)[:, :seen],
            valid[:, :seen],
            config.loss,
        )
        total, terms = found.total, dict(found.terms)
        terms["points"] = total.new_tensor(math.nan)
        if batch.source.startswith(REPLAY):
            if target.pointmap_world is None:
                raise ConfigError("The replayed cache has no world points. Build it with the ground-truth teacher.")
            points = pointmap_replay(
                world_points(prediction, self.base),
                prediction.confidence_world if self._likelihood else None,
                target.pointmap_world,
                valid,
                config.loss,
            )
            terms["points"] = points.detach()
            total = total + config.loss.replay_weight * points
        features = watch.norms()
        if config.base_features_every and step % config.base_features_every == 0:
            with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                features |= watch.against_base()
        for name in FEATURES:
            terms[name] = features.get(name, total.new_tensor(math.nan))
        return LossTerms(total=total, terms=terms)

    def watch(
        self, model: nn.Module, device: torch.device, dtype: torch.dtype | None, pictures: Path, step: int
    ) -> Seen:
        """Scores of held-out photos and replayed views, beside those of the frozen base."""
        return self._watch.look(model, device, dtype, pictures, step)

    def state(self, model: nn.Module) -> Mapping[str, Tensor]:
        """The adapters alone: the base is where it was."""
        return adapter_state(model)

    def restore(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Fill the adapters."""
        own = adapter_state(model)
        if own.keys() != state.keys():
            raise KeyError(f"{len(state)} adapter matrices, expected {len(own)}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def describe(self) -> dict[str, Any]:
        """The base and the data."""
        return {
            "kind": "refine",
            "base": {"model": self.config.base, "source": self._info.source, **self._info.plain()},
            "data": {"identity": self.identity, "licences": self.data.licences},
        }

    def save(self, out: Path, model: nn.Module, average: nn.Module | None, scores: Mapping[str, float]) -> None:
        """Write `adapter.safetensors`."""
        meta = {
            "licence": self._info.licence,
            "licence_chain": [f"base {self.config.base}: {self._info.licence}", *self.data.licences],
            "base": {"source": self._info.source, "variant": self.config.variant, **self._info.plain()},
            "training": {"settings": plain(self.config), "versions": versions(), "commit": git_commit()},
            "validation": dict(scores),
        }
        chosen = model if average is None else average
        save_adapter(out / FILE, chosen, model_name=self.config.base, meta=meta)

    def advice(self) -> str:
        """Other data than a cache may be at fault."""
        return "look at the teacher's maps in pictures/"

    @torch.no_grad()
    def _target(self, sample: Batch, views: Views, valid: Tensor) -> tuple[Prediction, Tensor]:
        """Cached labels, or what the teacher says now."""
        if any(getattr(sample.target, item.name) is not None for item in fields(sample.target)):
            return to_device(sample.target, views.images.device), valid
        teacher = self.data.sources.teacher
        assert teacher is not None
        return ask(teacher, views, valid)


def recompute_activations(model: nn.Module) -> None:
    """Let a finished network compute activations twice instead of keeping them.

    Raises:
        ConfigError: it cannot.
    """
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "gradient_checkpointing"):
        raise ConfigError(f"{type(model).__name__} has no gradient checkpointing. Set gradient_checkpointing to False.")
    model.config = replace(config, gradient_checkpointing=True)
    for module in model.modules():
        if isinstance(getattr(module, "gradient_checkpointing", None), bool):
            module.gradient_checkpointing = True  # type: ignore[assignment]
