"""Everything that a run needs before its first step, made from its job and its folder."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill3d.devices import autocast_dtype
from distill3d.errors import ConfigError
from distill3d.files import PathLike, ensure_output_dir, write_json
from distill3d.train.config import RunConfig
from distill3d.train.job import Job
from distill3d.train.optim import AveragedWeights, Optimizer
from distill3d.train.order import numbers_of_rank
from distill3d.train.parallel import Ranks
from distill3d.train.provenance import describe_run, versions
from distill3d.train.resume import (
    CONFIG,
    RunState,
    drop_later_checkpoints,
    find_state,
    plain,
    require_same_run,
    save_checkpoint,
)
from distill3d.train.samples import batches_in_order

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The parts of a run that is ready to go."""

    job: Job
    out: Path
    ranks: Ranks
    model: nn.Module
    wrapped: nn.Module
    """The network as the processes share it: the one to call in training."""
    optimizer: Optimizer
    average: AveragedWeights | None
    dtype: torch.dtype | None
    """What layers compute in; None: float32 without autocast."""
    start: int
    """Optimiser steps that are done already."""

    @property
    def config(self) -> RunConfig:
        """Of the job."""
        return self.job.config

    @property
    def best(self) -> nn.Module:
        """The weights to look at: the averaged ones where they are on."""
        return self.model if self.average is None else self.average.model

    @property
    def batches_a_step(self) -> int:
        """Over all processes."""
        return self.config.accumulation * self.ranks.world

    @property
    def parameters(self) -> int:
        """Of the network, frozen ones too."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def stream(self) -> Iterator[Any]:
        """The batches of this process from the first step to the last; `overfit`: those of one step, over and over."""
        config, ranks = self.config, self.ranks
        numbers = numbers_of_rank(
            rank=ranks.rank, world=ranks.world, accumulation=config.accumulation, start=self.start, steps=config.steps
        )
        if config.overfit:
            numbers = [number % self.batches_a_step for number in numbers]
        return batches_in_order(self.job.batches, numbers, config.workers)

    def save(self, done: int) -> Path:
        """Write the checkpoint after `done` optimiser steps.

        Raises:
            OutputError: it cannot be written; the one before it stays.
        """
        consumed = done * self.batches_a_step
        state = RunState(
            step=done,
            epoch=consumed // len(self.job.batches),
            consumed=consumed,
            model=dict(self.job.state(self.model)),
            optimizer=self.optimizer.state_dict(),
            averaged=None if self.average is None else dict(self.job.state(self.average.model)),
            settings=plain(self.config),
            identity=self.job.identity,
            world=self.ranks.world,
            versions=versions(),
        )
        return save_checkpoint(self.out, state, self.config.checkpoint.keep)


def prepare_run(job: Job, out: Path, ranks: Ranks, *, resume: PathLike | None) -> Run:
    """Make the network and its optimiser, take up a checkpoint, and write `config.json`.

    Raises:
        ConfigError, CheckpointError, OutputError: as for `run_job`.
    """
    config = job.config
    state = None if resume is None else find_state(resume)
    if ranks.first:
        ensure_output_dir(out, resume=resume is not None)

    model = job.build()
    if state is not None:  # only now does a job know the weights that it builds on
        require_same_run(state, config, job.identity, ranks.world, job.free)
    if state is None:
        job.start(model)
    model.to(ranks.device)
    job.train_mode(model)
    optimizer = Optimizer(model, config.optim, config.steps)
    average = AveragedWeights(model, config.optim.ema_decay) if config.optim.ema_decay is not None else None
    if state is not None:
        _restore(job, state, model, optimizer, average)
    run = Run(
        job=job,
        out=out,
        ranks=ranks,
        model=model,
        wrapped=ranks.wrap(model),
        optimizer=optimizer,
        average=average,
        dtype=autocast_dtype(config.precision, ranks.device),
        start=0 if state is None else state.step,
    )
    if ranks.first:
        drop_later_checkpoints(out, run.start)
        write_json(out / CONFIG, {**describe_run(config, ranks, run.parameters), **job.describe()})
        logger.info("%s: %.3g M parameters, on %s", job.title, run.parameters / 1e6, ranks.device)
    return run


def _restore(
    job: Job, state: RunState, model: nn.Module, optimizer: Optimizer, average: AveragedWeights | None
) -> None:
    try:
        job.restore(model, state.model)
        optimizer.load_state_dict(state.optimizer)
        if average is not None and state.averaged is not None:
            job.restore(average.model, state.averaged)
    except (RuntimeError, ValueError, KeyError) as error:
        # The settings agree, so the network itself has changed since.
        raise ConfigError(
            f"The checkpoint does not fit the network that these settings build ({str(error).splitlines()[0]}). "
            "Resume with the version of distill3d that wrote it, or start a new run."
        ) from error
