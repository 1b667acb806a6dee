"""The training loop: batches in, weights and curves out, whatever the job. `run_job` is the whole of it."""

import logging
import math
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.files import PathLike, read_json, write_json
from distill3d.progress import ProgressBar
from distill3d.train.job import Job
from distill3d.train.logs import RunLog, Stopwatch
from distill3d.train.parallel import join_ranks
from distill3d.train.prepare import Run, prepare_run
from distill3d.train.stopping import stop_requests

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
MOST_SKIPS = 3
"""So many steps in a row without a finite loss end the run."""


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What a run came to."""

    out: Path
    weights: Path
    """What was learned: the student, or the adapter."""
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
    peak_memory_mb: float
    """Of tensors on the accelerator; on a CPU, of the whole process."""
    validation: dict[str, float] = field(default_factory=dict)
    """The last scores on what is not trained on."""
    time_shares: dict[str, float] = field(default_factory=dict)
    """Where the time of the steps went: data, forward, backward, optim."""


def run_job(job: Job, out: PathLike, *, resume: PathLike | None = None) -> TrainSummary:
    """Train after a job into the run folder `out`.

    Started by torchrun, the processes share the work, and only the first writes. The same seed gives the same bits on
    a CPU with the same number of threads, stopped and resumed or not.

    Args:
        job: what to train.
        out: the run folder; it must be new or empty unless the run is resumed in it.
        resume: a run folder (its newest checkpoint) or one checkpoint to go on from.

    Raises:
        ConfigError: settings that do not fit the data, the network or the resumed run, or a loss that is not finite.
        CheckpointError: nothing to resume, or weights that do not fit.
        OutputError: `out` holds something else or cannot be written; the last checkpoint stays valid.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    began = time.monotonic()
    config = job.config
    with join_ranks(config.device) as ranks, torch.random.fork_rng(devices=[]):
        run = prepare_run(job, Path(out), ranks, resume=resume)
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
                found, keys = _accumulate_gradient(run, stream, watch, step)
                norm = run.optimizer.clip()
                # All processes see the same numbers, so they all take the step, leave it out, or stop.
                means, asked = _means(found, ranks.mean(_packed(found, stop.asked)))
                means["gradient_norm"] = float(norm)
                share = 0.0
                if math.isfinite(means["loss"]) and math.isfinite(means["gradient_norm"]):
                    share = run.optimizer.step(step)
                    if run.average is not None:
                        run.average.update(run.model, step)
                    in_a_row = 0
                else:
                    skipped, in_a_row = skipped + 1, in_a_row + 1
                    logger.warning("step %d left out: %s", step + 1, means)
                    if in_a_row == MOST_SKIPS:
                        raise ConfigError(_advice(job, step + 1, keys))
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
                    if job.watched and _due(done, config.validation.every_steps, config.steps):
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
            weights=run.out / job.weights,
            steps=config.steps,
            steps_now=config.steps - run.start,
            parameters=run.parameters,
            seconds=time.monotonic() - began,
            samples_per_second=(config.steps - run.start) * samples_a_step / seconds if seconds else 0.0,
            loss=sum(recent) / len(recent) if recent else math.nan,
            skipped=skipped,
            peak_memory_mb=peak_memory_mb(ranks.device),
            validation=scores,
            time_shares=watch.shares(),
        )
        if ranks.first:
            job.save(run.out, run.model, None if run.average is None else run.average.model, scores)
            write_json(run.out / SUMMARY, {**asdict(summary), "out": str(run.out), "weights": job.weights})
        return summary


def _finished(run: Run) -> TrainSummary | None:
    """What a resumed run came to, if there is nothing left to do in it."""
    summary = run.out / SUMMARY
    if run.start < run.config.steps or not (summary.is_file() and (run.out / run.job.weights).is_file()):
        return None
    logger.info("%s is finished already", run.out)
    return TrainSummary(**{**read_json(summary), "out": run.out, "weights": run.out / run.job.weights, "steps_now": 0})


def _accumulate_gradient(
    run: Run, stream: Iterator[Any], watch: Stopwatch, step: int
) -> tuple[dict[str, list[Tensor]], tuple[str, ...]]:
    """Forward and backward over the batches of one optimiser step: loss and terms of each, and the last one's keys."""
    config, device = run.config, run.ranks.device
    found: dict[str, list[Tensor]] = {}
    keys: tuple[str, ...] = ()
    for index in range(config.accumulation):
        batch = next(stream)
        keys = batch.keys
        watch.lap("data")
        with run.ranks.accumulate(run.wrapped, last=index == config.accumulation - 1):
            loss = run.job.loss(run.wrapped, batch, device, run.dtype, step)
            watch.lap("forward")
            torch.autograd.backward(loss.total / config.accumulation)
        for name, value in {"loss": loss.total.detach(), **loss.terms}.items():
            found.setdefault(name, []).append(value)
        watch.lap("backward")
    return found, keys


def _packed(found: dict[str, list[Tensor]], asked: bool) -> Tensor:
    """Sums and counts of all terms in one tensor, and whether a stop is asked for: what the processes exchange."""
    values = torch.stack([torch.stack(of) for of in found.values()])  # (terms, accumulation)
    told = ~values.isnan()
    told[0] = True  # a loss that is NaN is a fault, not absent
    sums, counts = torch.where(told, values, 0.0).sum(dim=1), told.sum(dim=1)
    return torch.cat([sums, counts.to(sums.dtype), sums.new_tensor([float(asked)])])


def _means(found: dict[str, list[Tensor]], packed: Tensor) -> tuple[dict[str, float], bool]:
    """Back from the mean over the processes to a number per term; those that no batch told of are left out."""
    *numbers, asked = packed.tolist()
    sums, counts = numbers[: len(found)], numbers[len(found) :]
    means = {name: total / count for name, total, count in zip(found, sums, counts, strict=True) if count}
    return means, asked > 0


def _watch(run: Run, log: RunLog, done: int) -> dict[str, float]:
    """Validate, log the scores and pictures, and return the scores."""
    seen = run.job.watch(run.best, run.ranks.device, run.dtype, run.out / "pictures", done)
    log.write("validation", done, seen.scores)
    for number, path in enumerate(seen.pictures):
        log.picture(f"validation/{number}", done, path)
    return seen.scores


def peak_memory_mb(device: torch.device) -> float:
    """Most memory that tensors took on the accelerator so far; on a CPU, that this process took."""
    if device.type != "cpu":
        return round(float(torch.get_device_module(device).max_memory_allocated(device)) / 1e6, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def _due(done: int, every: int, steps: int) -> bool:
    """Whether something that happens every so many steps (0: never), and after the last, is due."""
    return every > 0 and (done % every == 0 or done == steps)


def _advice(job: Job, step: int, keys: tuple[str, ...]) -> str:
    return (
        f"The loss or its gradient was not finite {MOST_SKIPS} times in a row, up to step {step} (samples "
        f"{', '.join(keys)}). Try a lower optim.lr, a longer optim.warmup_steps, a smaller optim.clip_norm or "
        f"precision fp32, and {job.advice()}. The last checkpoint is still good."
    )
