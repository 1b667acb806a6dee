"""Everything that a run needs before its first step, made from settings and folders."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill3d.cache.reader import CacheReader
from distill3d.devices import autocast_dtype
from distill3d.errors import ConfigError
from distill3d.files import PathLike, ensure_output_dir, write_json
from distill3d.train.config import DistillConfig
from distill3d.train.optim import AveragedWeights, Optimizer
from distill3d.train.order import numbers_of_rank
from distill3d.train.parallel import Ranks
from distill3d.train.provenance import describe_run, versions
from distill3d.train.resume import (
    CONFIG,
    RunState,
    cache_identity,
    drop_later_checkpoints,
    find_state,
    plain,
    require_same_run,
    save_checkpoint,
)
from distill3d.train.samples import Batch, CachedBatches, batches_in_order, split_keys
from distill3d.train.students import build_student, load_initial_weights, start_at_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The parts of a run that is ready to go."""

    config: DistillConfig
    out: Path
    ranks: Ranks
    reader: CacheReader
    identity: dict[str, Any]
    """`cache_identity` of the samples trained on."""
    batches: CachedBatches
    watched: CachedBatches | None
    """Held-out groups one by one, if any are watched."""
    student: nn.Module
    wrapped: nn.Module
    """The student as the processes share it: the one to call in training."""
    optimizer: Optimizer
    average: AveragedWeights | None
    dtype: torch.dtype | None
    """What layers compute in; None: float32 without autocast."""
    start: int
    """Optimiser steps that are done already."""

    @property
    def best(self) -> nn.Module:
        """The weights to look at: the averaged ones where they are on."""
        return self.student if self.average is None else self.average.model

    @property
    def batches_a_step(self) -> int:
        """Over all processes."""
        return self.config.accumulation * self.ranks.world

    @property
    def parameters(self) -> int:
        """Of the student."""
        return sum(parameter.numel() for parameter in self.student.parameters())

    def stream(self) -> Iterator[Batch]:
        """The batches of this process from the first step to the last; `overfit`: those of one step, over and over."""
        config, ranks = self.config, self.ranks
        numbers = numbers_of_rank(
            rank=ranks.rank, world=ranks.world, accumulation=config.accumulation, start=self.start, steps=config.steps
        )
        if config.overfit:
            numbers = [number % self.batches_a_step for number in numbers]
        return batches_in_order(self.batches, numbers, config.workers)

    def save(self, done: int) -> Path:
        """Write the checkpoint after `done` optimiser steps.

        Raises:
            OutputError: it cannot be written; the one before it stays.
        """
        consumed = done * self.batches_a_step
        state = RunState(
            step=done,
            epoch=consumed // len(self.batches),
            consumed=consumed,
            model=self.student.state_dict(),
            optimizer=self.optimizer.state_dict(),
            averaged=None if self.average is None else self.average.model.state_dict(),
            settings=plain(self.config),
            cache=self.identity,
            world=self.ranks.world,
            versions=versions(),
        )
        return save_checkpoint(self.out, state, self.config.checkpoint.keep)


def prepare_run(
    config: DistillConfig,
    cache_path: PathLike,
    out: Path,
    ranks: Ranks,
    *,
    validation_cache: PathLike | None,
    resume: PathLike | None,
) -> Run:
    """Open the data, make the student and its optimiser, take up a checkpoint, and write `config.json`.

    Raises:
        ConfigError, CacheError, CheckpointError, OutputError: as for `train`.
    """
    reader, keys, watched = _open_data(config, cache_path, validation_cache)
    batches = CachedBatches(reader, keys, config.data, views=config.views, batch=config.batch, seed=config.seed)
    identity = cache_identity(reader, keys)
    state = None if resume is None else find_state(resume)
    if state is not None:
        require_same_run(state, config, identity, ranks.world)
    if ranks.first:
        ensure_output_dir(out, resume=resume is not None)

    student = build_student(config)
    if state is None:
        load_initial_weights(student, config)
        if config.mean_map_start and config.initial_weights is None:
            start_at_mean(student, batches, normalise=config.loss.normalise)
    student.to(ranks.device).train()
    optimizer = Optimizer(student, config.optim, config.steps)
    average = AveragedWeights(student, config.optim.ema_decay) if config.optim.ema_decay is not None else None
    if state is not None:
        _restore(state, student, optimizer, average)
    run = Run(
        config=config,
        out=out,
        ranks=ranks,
        reader=reader,
        identity=identity,
        batches=batches,
        watched=watched,
        student=student,
        wrapped=ranks.wrap(student),
        optimizer=optimizer,
        average=average,
        dtype=autocast_dtype(config.precision, ranks.device),
        start=0 if state is None else state.step,
    )
    if ranks.first:
        drop_later_checkpoints(out, run.start)
        about = describe_run(config, reader, cache_path, validation_cache, identity, ranks, run.parameters)
        write_json(out / CONFIG, about)
        words = (config.student, config.variant, run.parameters / 1e6, len(keys), len(batches), ranks.device)
        logger.info("%s %s: %.3g M parameters, %d samples in %d batches an epoch, on %s", *words)
    return run


def _open_data(
    config: DistillConfig, cache_path: PathLike, validation_cache: PathLike | None
) -> tuple[CacheReader, list[str], CachedBatches | None]:
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
    watched = CachedBatches(
        source, held, config.data, views=min(config.views, fewest), batch=1, seed=config.seed, augment=False
    )
    return reader, keys, watched


def _restore(state: RunState, student: nn.Module, optimizer: Optimizer, average: AveragedWeights | None) -> None:
    try:
        student.load_state_dict(dict(state.model))
        optimizer.load_state_dict(state.optimizer)
        if average is not None and state.averaged is not None:
            average.model.load_state_dict(dict(state.averaged))
    except (RuntimeError, ValueError, KeyError) as error:
        # The settings agree, so the network itself has changed since.
        raise ConfigError(
            f"The checkpoint does not fit the student that these settings build ({str(error).splitlines()[0]}). "
            "Resume with the version of distill3d that wrote it, or start a new run."
        ) from error
