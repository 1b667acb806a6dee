"""Distilling: a student learns what teachers said, from caches."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill3d.cache.reader import CacheReader
from distill3d.errors import ConfigError
from distill3d.files import PathLike
from distill3d.losses.distill import distill_loss
from distill3d.losses.terms import LossTerms
from distill3d.train.config import DistillConfig
from distill3d.train.job import Job, Seen
from distill3d.train.loop import TrainSummary, run_job
from distill3d.train.mixing import by_weight
from distill3d.train.provenance import STUDENT, save_student
from distill3d.train.resume import cache_identity
from distill3d.train.samples import Batch, CacheDataset, split_keys
from distill3d.train.students import build_student, load_initial_weights, predict, start_at_mean
from distill3d.train.validate import validate
from distill3d.types import to_device


def train(
    config: DistillConfig,
    cache_path: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    validation_cache: PathLike | None = None,
    resume: PathLike | None = None,
) -> TrainSummary:
    """Distil a student from a cache into the run folder `out`.

    The folder gets `config.json`, `metrics.jsonl`, `checkpoints/`, `pictures/`, `tensorboard/`, `summary.json` and
    `student.safetensors`. See `run_job` for several processes and repeatability.

    Args:
        config: all settings; see `recipes`.
        cache_path: labels to learn from; of several caches, every batch comes from one (`data.weights`).
        out: the run folder; it must be new or empty unless the run is resumed in it.
        validation_cache: labels to watch on; None holds back a share of every training cache.
        resume: a run folder (its newest checkpoint) or one checkpoint to go on from.

    Raises:
        CacheError: a cache that cannot be read.
        ConfigError, CheckpointError, OutputError, KeyboardInterrupt: as for `run_job`.
    """
    return run_job(DistillJob(config, cache_path, validation_cache), out, resume=resume)


class DistillJob(Job):
    """A student, caches, and the loss between them."""

    config: DistillConfig
    weights = STUDENT
    # These only mattered at the start.
    free = ("initial_weights", "mean_map_start", "pretrained_encoder")

    def __init__(
        self,
        config: DistillConfig,
        cache_path: PathLike | Sequence[PathLike],
        validation_cache: PathLike | None = None,
    ) -> None:
        """Open the data.

        Raises:
            CacheError: a cache that cannot be read.
            ConfigError: it has no samples, or groups of fewer views than asked for; weights that do not fit the caches.
        """
        self.config = config
        self._paths = [cache_path] if isinstance(cache_path, str | os.PathLike) else list(cache_path)
        self._validation = validation_cache
        self._caches = [CacheReader(path) for path in self._paths]
        watches = bool(config.validation.every_steps) and not config.overfit
        training, watched = {}, {}
        self._identities = []
        for path, cache in zip(self._paths, self._caches, strict=True):
            keys, held = list(cache.keys()), list[str]()
            if watches and validation_cache is None:
                keys, held = split_keys(keys, config.validation.held_out, config.seed)
            training[str(path)] = CacheDataset(
                cache, keys, config.data, views=config.views, batch=config.batch, seed=config.seed
            )
            self._identities.append(cache_identity(cache, keys))
            if held:
                watched[str(path)] = _to_watch(config, cache, held)
        if watches and validation_cache is not None:
            cache = CacheReader(validation_cache)
            watched[str(validation_cache)] = _to_watch(config, cache, list(cache.keys()))
        if len(training) < len(self._paths):
            raise ConfigError(f"A cache is named twice in {', '.join(map(str, self._paths))}. Use weights instead.")
        mix = by_weight(training, config.data.weights, seed=config.seed)
        self.batches = mix.unmarked()
        self._watched = by_weight(watched, None, seed=config.seed).unmarked() if watched else None
        self.watched = self._watched is not None
        only, *more = self._identities
        self.identity = {"caches": self._identities} if more else only
        samples = sum(identity["samples"] for identity in self._identities)
        self.title = f"{config.student} {config.variant} on {samples} samples in {len(mix)} batches an epoch"
        if more:
            shares = ", ".join(f"{source.per_epoch} from {source.name}" for source in mix.sources)
            self.title = f"{self.title}: {shares}"

    def build(self) -> nn.Module:
        """A fresh student."""
        return build_student(self.config)

    def start(self, model: nn.Module) -> None:
        """Weights to start from, or the mean map."""
        load_initial_weights(model, self.config)
        if self.config.mean_map_start and self.config.initial_weights is None:
            start_at_mean(model, self.batches, normalise=self.config.loss.normalise)

    def loss(
        self, model: nn.Module, batch: Batch, device: torch.device, dtype: torch.dtype | None, step: int
    ) -> LossTerms:
        """Against what the teacher said."""
        views, target = to_device(batch.views, device), to_device(batch.target, device)
        prediction = predict(model, views.images, seed=batch.seed, dtype=dtype, head_chunk=self.config.head_chunk)
        return distill_loss(prediction, target, batch.valid.to(device), self.config.loss)

    def watch(
        self, model: nn.Module, device: torch.device, dtype: torch.dtype | None, pictures: Path, step: int
    ) -> Seen:
        """Scores against the teacher on held-out groups."""
        assert self._watched is not None
        numbers = range(min(len(self._watched), self.config.validation.groups))
        return validate(model, self._watched, numbers, self.config, device, dtype, pictures=pictures, step=step)

    def describe(self) -> dict[str, Any]:
        """The caches."""
        caches = [
            {"path": str(path), **identity, "header_fields": cache.header.plain()}
            for path, identity, cache in zip(self._paths, self._identities, self._caches, strict=True)
        ]
        validation = None if self._validation is None else str(self._validation)
        return {"cache": caches[0], "other_caches": caches[1:], "validation_cache": validation}

    def save(self, out: Path, model: nn.Module, average: nn.Module | None, scores: Mapping[str, float]) -> None:
        """Write `student.safetensors`."""
        headers = [cache.header for cache in self._caches]
        save_student(out, model, average, self.config, headers, scores)


def _to_watch(config: DistillConfig, cache: CacheReader, keys: Sequence[str]) -> CacheDataset:
    fewest = min(cache.shape(key)[0] for key in keys)
    views = min(config.views, fewest)
    return CacheDataset(cache, keys, config.data, views=views, batch=1, seed=config.seed, augment=False)
