"""Distilling: a student learns what teachers said, from one cache or a mix of several."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from distill3d.train.mixing import MixedBatch, MixedBatches, Source, turns
from distill3d.train.provenance import STUDENT, save_student
from distill3d.train.resume import cache_identity
from distill3d.train.samples import Batch, CacheDataset, split_keys
from distill3d.train.students import build_student, load_initial_weights, predict, start_at_mean
from distill3d.train.validate import validate
from distill3d.types import to_device

Paths = PathLike | Sequence[PathLike]


def train(
    config: DistillConfig,
    cache_path: Paths,
    out: PathLike,
    *,
    validation_cache: Paths | None = None,
    resume: PathLike | None = None,
) -> TrainSummary:
    """Distil a student from caches into the run folder `out`.

    The folder gets `config.json`, `metrics.jsonl`, `checkpoints/`, `pictures/`, `tensorboard/`, `summary.json` and
    `student.safetensors`. See `run_job` for several processes and repeatability.

    Args:
        config: all settings; see `recipes`.
        cache_path: labels to learn from: one cache, or several that take turns as `config.mix` says.
        out: the run folder; it must be new or empty unless the run is resumed in it.
        validation_cache: labels to watch on; without it a share of each training cache is held back.
        resume: a run folder (its newest checkpoint) or one checkpoint to go on from.

    Raises:
        CacheError: a cache that cannot be read.
        ConfigError, CheckpointError, OutputError, KeyboardInterrupt: as for `run_job`.
    """
    return run_job(DistillJob(config, cache_path, validation_cache), out, resume=resume)


@dataclass(frozen=True)
class _Part:
    """Some groups of a cache."""

    reader: CacheReader
    keys: list[str]


class DistillJob(Job):
    """A student, caches, and the loss between them."""

    config: DistillConfig
    batches: MixedBatches
    weights = STUDENT
    # These only mattered at the start.
    free = ("initial_weights", "mean_map_start", "pretrained_encoder")

    def __init__(self, config: DistillConfig, cache_path: Paths, validation_cache: Paths | None = None) -> None:
        """Open the data.

        Raises:
            CacheError: a cache that cannot be read.
            ConfigError: one has no samples, or groups of fewer views than asked for, or the mix does not fit them.
        """
        self.config = config
        self._validation_paths = [str(path) for path in _several(validation_cache)]
        parts, watched = _open_data(config, _several(cache_path), _several(validation_cache))
        self._readers = [part.reader for part in parts]
        caches = [
            CacheDataset(part.reader, part.keys, config.data, views=config.views, batch=config.batch, seed=config.seed)
            for part in parts
        ]
        sizes = [len(cache) for cache in caches]
        shares = sizes if config.mix is None else turns(sizes, config.mix)
        self.batches = _mixed(parts, caches, shares, config.seed)
        self._watched = _watching(config, watched)
        self._identities = [cache_identity(part.reader, part.keys) for part in parts]
        self.identity = _numbered(self._identities)
        self.watched = self._watched is not None
        words = (config.student, config.variant, sum(len(part.keys) for part in parts), len(self.batches))
        self.title = "{} {} on {} samples in {} batches an epoch".format(*words)

    def build(self) -> nn.Module:
        """A fresh student."""
        return build_student(self.config)

    def start(self, model: nn.Module) -> None:
        """Weights to start from, or the mean map."""
        load_initial_weights(model, self.config)
        if self.config.mean_map_start and self.config.initial_weights is None:
            epoch = _first(self.batches, len(self.batches))
            start_at_mean(model, epoch, normalise=self.config.loss.normalise)

    def loss(
        self, model: nn.Module, batch: MixedBatch, device: torch.device, dtype: torch.dtype | None, step: int
    ) -> LossTerms:
        """Against what the teacher said."""
        sample: Batch = batch.batch
        views, target = to_device(sample.views, device), to_device(sample.target, device)
        prediction = predict(model, views.images, seed=sample.seed, dtype=dtype, head_chunk=self.config.head_chunk)
        return distill_loss(prediction, target, sample.valid.to(device), self.config.loss)

    def watch(
        self, model: nn.Module, device: torch.device, dtype: torch.dtype | None, pictures: Path, step: int
    ) -> Seen:
        """Scores against the teacher on held-out groups."""
        assert self._watched is not None
        groups = _first(self._watched, self.config.validation.groups)
        return validate(model, groups, self.config, device, dtype, pictures=pictures, step=step)

    def describe(self) -> dict[str, Any]:
        """The caches."""
        found = [
            {"path": str(reader.path), **identity, "header_fields": reader.header.plain()}
            for reader, identity in zip(self._readers, self._identities, strict=True)
        ]
        return {"cache": found[0], "more_caches": found[1:], "validation_caches": self._validation_paths}

    def save(self, out: Path, model: nn.Module, average: nn.Module | None, scores: Mapping[str, float]) -> None:
        """Write `student.safetensors`."""
        save_student(out, model, average, self.config, self._readers, scores)


def _several(paths: Paths | None) -> list[PathLike]:
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths or ())


def _open_data(
    config: DistillConfig, caches: list[PathLike], validation: list[PathLike]
) -> tuple[list[_Part], list[_Part]]:
    """The groups to train on, and those to watch."""
    if not caches:
        raise ConfigError("There is nothing to learn from. Give a cache of `distill3d cache build`.")
    parts = [_Part(reader, list(reader.keys())) for reader in map(CacheReader, caches)]
    if config.validation.every_steps == 0 or config.overfit:
        return parts, []
    if validation:
        return parts, [_Part(reader, list(reader.keys())) for reader in map(CacheReader, validation)]
    watched = [_Part(part.reader, split_keys(part.keys, config.validation.held_out, config.seed)[1]) for part in parts]
    # A group that two teachers looked at is held back in both of their caches.
    held = {key for part in watched for key in part.keys}
    return [_Part(part.reader, [key for key in part.keys if key not in held]) for part in parts], watched


def _watching(config: DistillConfig, watched: list[_Part]) -> MixedBatches | None:
    """One group at a time, each with as many views as it can."""
    watched = [part for part in watched if part.keys]
    if not watched:
        return None
    caches = []
    for part in watched:
        views = min(config.views, *(part.reader.shape(key)[0] for key in part.keys))
        caches.append(
            CacheDataset(part.reader, part.keys, config.data, views=views, batch=1, seed=config.seed, augment=False)
        )
    return _mixed(watched, caches, [len(cache) for cache in caches], config.seed)


def _mixed(parts: list[_Part], caches: list[CacheDataset], shares: list[int], seed: int) -> MixedBatches:
    return MixedBatches(
        [
            Source(name=str(part.reader.path), batches=cache, per_epoch=share)
            for part, cache, share in zip(parts, caches, shares, strict=True)
        ],
        seed=seed,
    )


def _first(batches: MixedBatches, most: int) -> Iterator[Batch]:
    """The first batches of an epoch, at most so many."""
    return (batches[number].batch for number in range(min(len(batches), most)))


def _numbered(identities: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The identity of one cache as it is, those of several under their places."""
    if len(identities) == 1:
        return dict(identities[0])
    return {f"cache {place}": dict(identity) for place, identity in enumerate(identities, start=1)}
