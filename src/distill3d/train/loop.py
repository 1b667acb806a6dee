"""The training loop: batches of cached labels in, weights and curves out. `train` is the whole of it."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.files import PathLike, read_json, write_json
from distill3d.losses.distill import distill_loss
from distill3d.progress import ProgressBar
from distill3d.train.config import DistillConfig
from distill3d.train.logs import RunLog, Stopwatch
from distill3d.train.parallel import join_ranks
from distill3d.train.prepare import Run, prepare_run
from distill3d.train.provenance import STUDENT, save_student
from distill3d.train.samples import Batch
from distill3d.train.stopping import stop_requests
from distill3d.train.students import predict
from distill3d.train.validate import validate
from distill3d.types import to_device

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
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
    The same seed gives the same bits on a CPU with the same number of threads, stopped and resumed or not.

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
    began = time.monotonic()
    with join_ranks(config.device) as ranks, torch.random.fork_rng(devices=[]):
        run = prepare_run(config, cache_path, Path(out), ranks, validation_cache=validation_cache, resume=resume)
        if finished := _finished(run):
            return finished
        stream, watch = run.stream(), Stopwatch()
        samples_a_step = run.batches_a_step * config.batch
        recent: list[float] = []
        scores: dict[str, float] = {}
        skipped = in_a_row = 0
        saved_at = time.monotonic()
        with (
            RunLog(run.out, tensorboard=config.tensorboard, start=run.start, silent=not ranks.first) as log,
            ProgressBar("training", config.steps - run.start, unit="steps") as bar,
            stop_requests() as stop,
        ):
            for step in range(run.start, config.steps):
                watch.lap(None)
                sums, keys = _accumulate_gradient(run, stream, watch)
                norm = run.optimizer.clip()
                # All processes see the same numbers, so they all take the step, leave it out, or stop.
                *values, asked = ranks.mean(torch.stack([*sums.values(), norm.new_tensor(float(stop.asked))])).tolist()
                means = {**dict(zip(sums, values, strict=True)), "gradient_norm": float(norm)}
                share = 0.0
                if math.isfinite(means["loss"]) and math.isfinite(means["gradient_norm"]):
                    share = run.optimizer.step(step)
                    if run.average is not None:
                        run.average.update(run.student, step)
                    in_a_row = 0
                else:
                    skipped, in_a_row = skipped + 1, in_a_row + 1
                    logger.warning("step %d left out: %s", step + 1, means)
                    if in_a_row == MOST_SKIPS:
                        raise ConfigError(_advice(step + 1, keys))
                run.optimizer.zero_grad()
                watch.lap("optim")

                done = step + 1
                recent = [*recent[-49:], means["loss"]]
                pace = (done - run.start) * samples_a_step / sum(watch.seconds.values())
                if ranks.first:
                    bar.advance(note=f"loss {means['loss']:.4g} · {pace:.3g} samples/s")
                    if _due(done, config.log_every, config.steps):
                        about = {"lr": config.optim.lr * share, "samples_per_s": pace}
                        log.write("train", done, {**means, **about, "seconds": time.monotonic() - began})
                    if run.watched is not None and _due(done, config.validation.every_steps, config.steps):
                        scores = _watch(run, log, done)
                    late = 0 < config.checkpoint.every_seconds <= time.monotonic() - saved_at
                    if late or asked or done == config.steps or _due(done, config.checkpoint.every_steps, config.steps):
                        run.save(done)
                        saved_at = time.monotonic()
                if asked and done < config.steps:
                    if ranks.first:
                        logger.warning("stopped after step %d of %d; resume with %s", done, config.steps, run.out)
                    raise KeyboardInterrupt

        seconds = sum(watch.seconds.values())
        summary = TrainSummary(
            out=run.out,
            weights=run.out / STUDENT,
            steps=config.steps,
            steps_now=config.steps - run.start,
            parameters=run.parameters,
            seconds=time.monotonic() - began,
            samples_per_second=(config.steps - run.start) * samples_a_step / seconds if seconds else 0.0,
            loss=sum(recent) / len(recent) if recent else math.nan,
            skipped=skipped,
            validation=scores,
            time_shares=watch.shares(),
        )
        if ranks.first:
            save_student(run.out, run.student, run.average, config, run.reader, scores)
            write_json(run.out / SUMMARY, {**asdict(summary), "out": str(run.out), "weights": STUDENT})
        return summary


def _finished(run: Run) -> TrainSummary | None:
    """What a resumed run came to, if there is nothing left to do in it."""
    summary = run.out / SUMMARY
    if run.start < run.config.steps or not (summary.is_file() and (run.out / STUDENT).is_file()):
        return None
    logger.info("%s is finished already", run.out)
    return TrainSummary(**{**read_json(summary), "out": run.out, "weights": run.out / STUDENT, "steps_now": 0})


def _accumulate_gradient(
    run: Run, stream: Iterator[Batch], watch: Stopwatch
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Forward and backward over the batches of one optimiser step: mean loss and terms, and the last samples' keys."""
    config, device = run.config, run.ranks.device
    sums: dict[str, Tensor] = {}
    keys: tuple[str, ...] = ()
    for index in range(config.accumulation):
        batch = next(stream)
        keys = batch.keys
        views, target = to_device(batch.views, device), to_device(batch.target, device)
        valid = batch.valid.to(device)
        watch.lap("data")
        with run.ranks.accumulate(run.wrapped, last=index == config.accumulation - 1):
            prediction = predict(
                run.wrapped, views.images, seed=batch.seed, dtype=run.dtype, head_chunk=config.head_chunk
            )
            found = distill_loss(prediction, target, valid, config.loss)
            watch.lap("forward")
            torch.autograd.backward(found.total / config.accumulation)
        for name, value in {"loss": found.total.detach(), **found.terms}.items():
            sums[name] = sums.get(name, 0.0) + value / config.accumulation
        watch.lap("backward")
    return sums, keys


def _watch(run: Run, log: RunLog, done: int) -> dict[str, float]:
    """Validate, log the scores and pictures, and return the scores."""
    assert run.watched is not None
    numbers = range(min(len(run.watched), run.config.validation.groups))
    seen = validate(
        run.best,
        run.watched,
        numbers,
        run.config,
        run.ranks.device,
        run.dtype,
        pictures=run.out / "pictures",
        step=done,
    )
    log.write("validation", done, seen.scores)
    for number, path in enumerate(seen.pictures):
        log.picture(f"validation/{number}", done, path)
    return seen.scores


def _due(done: int, every: int, steps: int) -> bool:
    """Whether something that happens every so many steps (0: never), and after the last, is due."""
    return every > 0 and (done % every == 0 or done == steps)


def _advice(step: int, keys: tuple[str, ...]) -> str:
    return (
        f"The loss or its gradient was not finite {MOST_SKIPS} times in a row, up to step {step} (samples "
        f"{', '.join(keys)}). Try a lower optim.lr, a longer optim.warmup_steps, a smaller optim.clip_norm or "
        "precision fp32, and look at the cache with `distill3d cache check`. The last checkpoint is still good."
    )
