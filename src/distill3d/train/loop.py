"""The training loop: batches of cached labels in, weights and curves out. `train` is the whole of it."""

import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill3d.cache.reader import CacheReader
from distill3d.errors import ConfigError
from distill3d.files import PathLike, ensure_output_dir, write_json
from distill3d.losses.distill import distill_loss
from distill3d.progress import ProgressBar
from distill3d.train.config import DistillConfig
from distill3d.train.logs import RunLog, Stopwatch
from distill3d.train.optim import AveragedWeights, Optimizer
from distill3d.train.order import numbers_of_rank
from distill3d.train.parallel import autocast_dtype, join_ranks
from distill3d.train.provenance import describe_run, save_student, versions
from distill3d.train.resume import (
    CONFIG,
    RunState,
    cache_identity,
    drop_later_checkpoints,
    load_checkpoint,
    plain,
    require_same_run,
    save_checkpoint,
)
from distill3d.train.samples import CachedBatches, batches_in_order, split_keys
from distill3d.train.stopping import stop_requests
from distill3d.train.students import build_student, load_initial_weights, predict, start_at_mean
from distill3d.train.validate import validate
from distill3d.types import to_device

logger = logging.getLogger(__name__)

MOST_SKIPS = 3
"""So many steps in a row without a finite loss end the run."""


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What a run came to."""

    out: Path
    weights: Path
    """The finished student, which every other command takes."""
    steps: int
    """Optimiser steps of the whole run."""
    steps_now: int
    """Those of this call; fewer where it resumed."""
    parameters: int
    seconds: float
    samples_per_second: float
    """While training, without validation and checkpoints."""
    loss: float
    """Mean of the last steps, at most 50."""
    skipped: int
    """Steps left out because the loss was not finite."""
    validation: dict[str, float] = field(default_factory=dict)
    """The last scores on held-out groups."""
    time_shares: dict[str, float] = field(default_factory=dict)
    """Where the time of the steps went: data, forward, backward, optim."""


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
    `student.safetensors`. Started by torchrun, the processes share the work, and only the first writes.

    Args:
        config: all settings; see `recipes`.
        cache_path: labels to learn from.
        out: the run folder; it must be new or empty unless the run is resumed in it.
        validation_cache: labels to watch on; None holds back a share of the training cache.
        resume: a run folder (its newest checkpoint) or one checkpoint to go on from.

    Raises:
        ConfigError: settings that do not fit the cache, the student or the resumed run, or a loss that is not finite.
        CacheError: a cache that cannot be read.
        CheckpointError: nothing to resume, or weights that do not fit.
        OutputError: `out` holds something else or cannot be written; the last checkpoint stays valid.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    began, out = time.monotonic(), Path(out)
    with join_ranks(config.device) as ranks, torch.random.fork_rng(devices=[]):
        # What to learn from, and what to watch.
        batches, watched, identity, reader = _open_data(config, Path(cache_path), validation_cache)
        state = load_checkpoint(resume) if resume is not None else None
        if state is not None:
            require_same_run(state, config, identity, ranks.world)
        if ranks.first:
            ensure_output_dir(out, resume=state is not None)

        # What learns, and how.
        student = build_student(config)
        if state is None:
            load_initial_weights(student, config)
            if config.mean_map_start and config.initial_weights is None:
                start_at_mean(student, batches, normalise=config.loss.normalise)
        student.to(ranks.device).train()
        optimizer = Optimizer(student, config.optim, config.steps)
        average = AveragedWeights(student, config.optim.ema_decay) if config.optim.ema_decay is not None else None
        start = 0 if state is None else _restore(state, student, optimizer, average)
        dtype = autocast_dtype(config.precision, ranks.device)
        wrapped = ranks.wrap(student)
        parameters = sum(parameter.numel() for parameter in student.parameters())
        if ranks.first:
            drop_later_checkpoints(out, start)
            about = describe_run(config, reader, cache_path, validation_cache, identity, ranks, parameters)
            write_json(out / CONFIG, about)
            logger.info(
                "%s %s: %.3g M parameters, %d samples in %d batches an epoch, %s",
                config.student, config.variant, parameters / 1e6, len(reader), len(batches), ranks.device,
            )  # fmt: skip

        def save(done: int) -> None:
            consumed = done * config.accumulation * ranks.world
            save_checkpoint(
                out,
                RunState(
                    step=done,
                    epoch=consumed // len(batches),
                    consumed=consumed,
                    model=student.state_dict(),
                    optimizer=optimizer.state_dict(),
                    averaged=None if average is None else average.model.state_dict(),
                    settings=plain(config),
                    cache=identity,
                    world=ranks.world,
                    versions=versions(),
                ),
                config.checkpoint.keep,
            )

        per_step = config.accumulation * ranks.world
        numbers = numbers_of_rank(
            rank=ranks.rank, world=ranks.world, accumulation=config.accumulation, start=start, steps=config.steps
        )
        if config.overfit:
            numbers = [number % per_step for number in numbers]
        stream = batches_in_order(batches, numbers, config.workers)
        watch, saved_at, saved_step = Stopwatch(), time.monotonic(), start
        recent: list[float] = []
        skipped = in_a_row = 0
        scores: dict[str, float] = {}

        with (
            RunLog(out, tensorboard=config.tensorboard, start=start, silent=not ranks.first) as log,
            ProgressBar("training", config.steps - start, unit="steps") as bar,
            stop_requests() as stop,
        ):
            watch.lap(None)
            for step in range(start, config.steps):
                # One optimiser step: the mean gradient of `accumulation` batches of every process.
                sums: dict[str, Tensor] = {}
                for index in range(config.accumulation):
                    batch = next(stream)
                    views, target = to_device(batch.views, ranks.device), to_device(batch.target, ranks.device)
                    valid = batch.valid.to(ranks.device)
                    watch.lap("data")
                    with ranks.accumulate(wrapped, last=index == config.accumulation - 1):
                        prediction = predict(
                            wrapped, views.images, seed=batch.seed, dtype=dtype, head_chunk=config.head_chunk
                        )
                        terms = distill_loss(prediction, target, valid, config.loss)
                        watch.lap("forward")
                        torch.autograd.backward(terms.total / config.accumulation)
                    for name, value in {"loss": terms.total, **terms.terms}.items():
                        sums[name] = sums.get(name, 0.0) + value.detach() / config.accumulation
                    watch.lap("backward")

                # All processes see the same numbers, so they all take the step or all leave it out.
                norm = optimizer.clip()
                told = torch.stack([*sums.values(), norm.new_tensor(float(stop.asked))])
                *values, stopping = ranks.mean(told).tolist()
                means, norm_value = dict(zip(sums, values, strict=True)), float(norm)
                share = 0.0
                if torch.isfinite(torch.tensor([means["loss"], norm_value])).all():
                    share = optimizer.step(step)
                    if average is not None:
                        average.update(student, step)
                    in_a_row = 0
                else:
                    skipped, in_a_row = skipped + 1, in_a_row + 1
                    logger.warning("step %d left out: loss %s, gradient norm %s", step, means["loss"], norm_value)
                    if in_a_row == MOST_SKIPS:
                        raise ConfigError(_advice(step, batch.keys))
                optimizer.zero_grad()
                watch.lap("optim")

                # What it leaves to see: numbers, pictures, checkpoints.
                done = step + 1
                recent = [*recent[-49:], means["loss"]]
                pace = (done - start) * per_step * config.batch / sum(watch.seconds.values())
                if ranks.first:
                    bar.advance(note=f"loss {means['loss']:.4g} · {pace:.3g} samples/s")
                    if done % config.log_every == 0 or done == config.steps:
                        rates = {"lr": config.optim.lr * share, "gradient_norm": norm_value, "samples_per_s": pace}
                        log.write("train", done, {**means, **rates, "seconds": time.monotonic() - began})
                    if watched is not None and _due(done, config.validation.every_steps, config.steps):
                        seen = validate(
                            student if average is None else average.model,
                            watched, range(min(len(watched), config.validation.groups)), config, ranks.device, dtype,
                            pictures=out / "pictures", step=done,
                        )  # fmt: skip
                        scores = seen.scores
                        log.write("validation", done, scores)
                        for number, path in enumerate(seen.pictures):
                            log.picture(f"validation/{number}", done, path)
                    late = 0 < config.checkpoint.every_seconds <= time.monotonic() - saved_at
                    if late or stopping or _due(done, config.checkpoint.every_steps, config.steps, last=True):
                        save(done)
                        saved_at, saved_step = time.monotonic(), done
                if stopping and done < config.steps:
                    if ranks.first:
                        logger.warning(
                            "stopped at step %d of %d; resume with --resume %s", saved_step, config.steps, out
                        )
                    raise KeyboardInterrupt
                watch.lap(None)

        trained = sum(watch.seconds.values())
        summary = TrainSummary(
            out=out,
            weights=out / "student.safetensors",
            steps=config.steps,
            steps_now=config.steps - start,
            parameters=parameters,
            seconds=time.monotonic() - began,
            samples_per_second=(config.steps - start) * per_step * config.batch / trained if trained else 0.0,
            loss=sum(recent) / len(recent) if recent else float("nan"),
            skipped=skipped,
            validation=scores,
            time_shares=watch.shares(),
        )
        if ranks.first:
            save_student(out, student, average, config, reader, scores)
            write_json(out / "summary.json", {**asdict(summary), "out": str(out), "weights": summary.weights.name})
        return summary


def _open_data(
    config: DistillConfig, cache: Path, validation_cache: PathLike | None
) -> tuple[CachedBatches, CachedBatches | None, dict[str, Any], CacheReader]:
    reader = CacheReader(cache)
    keys, held = list(reader.keys()), list[str]()
    watch = config.validation.every_steps > 0 and not config.overfit
    if watch and validation_cache is None:
        keys, held = split_keys(keys, config.validation.held_out, config.seed)
    batches = CachedBatches(reader, keys, config.data, views=config.views, batch=config.batch, seed=config.seed)
    watched = None
    source = reader if validation_cache is None else CacheReader(validation_cache)
    chosen = held if validation_cache is None else list(source.keys())
    if watch and chosen:
        fewest = min(source.shape(key)[0] for key in chosen)
        watched = CachedBatches(
            source, chosen, config.data, views=min(config.views, fewest), batch=1, seed=config.seed, augment=False
        )
    return batches, watched, cache_identity(reader, keys), reader


def _restore(state: RunState, student: nn.Module, optimizer: Optimizer, average: AveragedWeights | None) -> int:
    student.load_state_dict(state.model)
    optimizer.load_state_dict(state.optimizer)
    if average is not None and state.averaged is not None:
        average.model.load_state_dict(state.averaged)
    return state.step


def _due(done: int, every: int, steps: int, *, last: bool = False) -> bool:
    """Whether something that happens every so many steps, and at the end, is due; `last`: at the end in any case."""
    return (every > 0 and (done % every == 0 or done == steps)) or (last and done == steps)


def _advice(step: int, keys: tuple[str, ...]) -> str:
    return (
        f"The loss or its gradient was not finite {MOST_SKIPS} times in a row, up to step {step} (samples "
        f"{', '.join(keys)}). Try a lower optim.lr, a longer optim.warmup_steps, a smaller optim.clip_norm or "
        "precision fp32, and look at the cache with `distill3d cache check`. The last checkpoint is still good."
    )
