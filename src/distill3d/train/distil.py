"""Distilling: a student learns what a teacher said, from a cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill3d.cache.reader import CacheReader
from distill3d.files import PathLike
from distill3d.losses.distill import distill_loss
from distill3d.losses.terms import LossTerms
from distill3d.train.config import DistillConfig
from distill3d.train.job import Job, Seen
from distill3d.train.loop import TrainSummary, run_job
from distill3d.train.provenance import STUDENT, save_student
from distill3d.train.resume import cache_identity
from distill3d.train.samples import Batch, CacheDataset, split_keys
from distill3d.train.students import build_student, load_initial_weights, predict, start_at_mean
from distill3d.train.validate import validate
from distill3d.types import to_device


def train(
    config: DistillConfig,
    cache_path: PathLike,
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
        cache_path: labels to learn from.
        out: the run folder; it must be new or empty unless the run is resumed in it.
        validation_cache: labels to watch on; None holds back a share of the training cache.
        resume: a run folder (its newest checkpoint) or one checkpoint to go on from.

    Raises:
        CacheError: a cache that cannot be read.
        ConfigError, CheckpointError, OutputError, KeyboardInterrupt: as for `run_job`.
    """
    return run_job(DistillJob(config, cache_path, validation_cache), out, resume=resume)


class DistillJob(Job):
    """A student, a cache, and the loss between them."""

    config: DistillConfig
    batches: CacheDataset
    weights = STUDENT
    # These only mattered at the start.
    free = ("initial_weights", "mean_map_start", "pretrained_encoder")

    def __init__(self, config: DistillConfig, cache_path: PathLike, validation_cache: PathLike | None = None) -> None:
        """Open the data.

        Raises:
            CacheError: a cache that cannot be read.
            ConfigError: it has no samples, or groups of fewer views than asked for.
        """
        self.config = config
        self._paths = str(cache_path), None if validation_cache is None else str(validation_cache)
        self._reader, keys, self._watched = _open_data(config, cache_path, validation_cache)
        self.batches = CacheDataset(
            self._reader, keys, config.data, views=config.views, batch=config.batch, seed=config.seed
        )
        self.identity = cache_identity(self._reader, keys)
        self.watched = self._watched is not None
        words = (config.student, config.variant, len(keys), len(self.batches))
        self.title = "{} {} on {} samples in {} batches an epoch".format(*words)

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
        cache_path, validation_cache = self._paths
        header = {"header_fields": self._reader.header.plain()}
        return {"cache": {"path": cache_path, **self.identity, **header}, "validation_cache": validation_cache}

    def save(self, out: Path, model: nn.Module, average: nn.Module | None, scores: Mapping[str, float]) -> None:
        """Write `student.safetensors`."""
        save_student(out, model, average, self.config, self._reader, scores)


def _open_data(
    config: DistillConfig, cache_path: PathLike, validation_cache: PathLike | None
) -> tuple[CacheReader, list[str], CacheDataset | None]:
    """The cache, the keys to train on, and the groups to watch."""
    reader = CacheReader(cache_path)
    keys = list(reader.keys())
    if config.validation.every_steps == 0 or config.overfit:
        return reader, keys, None
    if validation_cache is None:
        source = reader
        keys, held = split_keys(keys, config.validation.held_out, config.seed)
    else:
        source = CacheReader(validation_cache)
        held = list(source.keys())
    if not held:
        return reader, keys, None
    fewest = min(source.shape(key)[0] for key in held)
    watched = CacheDataset(
        source, held, config.data, views=min(config.views, fewest), batch=1, seed=config.seed, augment=False
    )
    return reader, keys, watched
