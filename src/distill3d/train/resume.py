"""Checkpoints that a crash cannot spoil, and the rules for going on from one."""

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from distill3d.cache.reader import CacheReader
from distill3d.errors import CheckpointError, ConfigError
from distill3d.files import PathLike, atomic_write_bytes, read_json
from distill3d.train.config import DistillConfig, RunConfig

logger = logging.getLogger(__name__)

FORMAT = 2
CONFIG = "config.json"
FOLDER = "checkpoints"

FREE = (
    "checkpoint.",
    "data.memory_mb",
    "device",
    "gradient_checkpointing",
    "head_chunk",
    "log_every",
    "tensorboard",
    "validation.every_steps",
    "validation.groups",
    "validation.pictures",
    "workers",
)
"""Settings of every run that may change on resume: they do not decide what is learned."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Everything a run needs to go on as if it had never stopped.

    No state of a generator is among it: each draw is seeded by its place in the run, so `consumed` says it all.
    """

    step: int
    """Optimiser steps done."""
    epoch: int
    consumed: int
    """Batches taken so far, by all processes together."""
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    averaged: Mapping[str, Any] | None
    """The averaged weights, where they are on."""
    settings: Mapping[str, Any]
    identity: Mapping[str, Any]
    """Of what it was trained on: `Job.identity`."""
    world: int
    versions: Mapping[str, Any]


def save_checkpoint(run: Path, state: RunState, keep: int) -> Path:
    """Write `checkpoints/step-XXXXXXX.pt` in one step and remove all but the newest `keep`.

    Raises:
        OutputError: it cannot be written; the checkpoints before it stay as they are.
    """
    content = {item.name: getattr(state, item.name) for item in fields(state)}
    for name in ("settings", "identity", "versions"):
        content[name] = json.dumps(content[name])
    # Through memory: torch turns a full disk into an error of its own, a file says which.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    path = run / FOLDER / f"step-{state.step:07d}.pt"
    atomic_write_bytes(path, buffer.getbuffer())
    for old in list_checkpoints(run)[:-keep]:
        old.unlink(missing_ok=True)
    logger.debug("wrote %s", path)
    return path


def list_checkpoints(run: PathLike) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    return sorted((Path(run) / FOLDER).glob("step-*.pt"))


def drop_later_checkpoints(run: PathLike, step: int) -> None:
    """Remove the checkpoints after `step`: the run goes on from there, so they are of another course."""
    for path in list_checkpoints(run):
        if int(path.stem.split("-")[1]) > step:
            path.unlink()


def load_checkpoint(source: PathLike) -> RunState:
    """The newest checkpoint of a run folder, or the one of a file. Nothing in it is executed.

    Raises:
        CheckpointError: there is none, it is damaged, or another version wrote it.
    """
    path = Path(source)
    if path.is_dir():
        found = list_checkpoints(path)
        if not found:
            raise CheckpointError(
                f"{path} has no {FOLDER}/step-*.pt to go on from. Give a run folder, or train without --resume."
            )
        path = found[-1]
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist. Give a run folder or one of its {FOLDER}/step-*.pt.") from None
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of a run ({type(error).__name__}). "
            "Remove it to go on from an earlier one."
        ) from error
    number = content.get("format") if isinstance(content, dict) else None
    if number != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {number!r}; this version of distill3d reads {FORMAT}.")
    del content["format"]
    for name in ("settings", "identity", "versions"):
        content[name] = json.loads(content[name])
    return RunState(**content)


def find_state(source: PathLike) -> RunState | None:
    """As `load_checkpoint`, but None for a run folder that was stopped before its first checkpoint: begin again.

    Raises:
        CheckpointError: as for `load_checkpoint`.
    """
    folder = Path(source)
    if (folder / CONFIG).exists() and not list_checkpoints(folder):
        logger.info("%s has no checkpoint yet; it begins again", folder)
        return None
    return load_checkpoint(source)


def cache_identity(reader: CacheReader, keys: Sequence[str]) -> dict[str, Any]:
    """What must be the same for the samples to be the same: the header of the cache, and the keys trained on."""
    header = reader.header.plain()
    return {
        "teacher": reader.header.teacher,
        "weights_hash": reader.header.weights_hash,
        "samples": len(keys),
        "header": _digest(json.dumps(header, sort_keys=True)),
        "keys": _digest("\n".join(keys)),
    }


def require_same_run(
    state: RunState, config: RunConfig, identity: Mapping[str, Any], world: int, free: Sequence[str] = ()
) -> None:
    """Refuse to go on with other settings or other data than the checkpoint's.

    Free to change are the settings in `FREE` and `free`; `accumulation` together with the number of processes, as long
    as a step has as many samples; and `steps` where the rate is constant (`optim.min_lr_ratio` 1): else it bends the
    schedule.

    Raises:
        ConfigError: names every difference, what the checkpoint has and what was asked for.
    """
    found, expected = flatten(state.settings), flatten(plain(config))
    free = [*FREE, *free]
    if state.settings["accumulation"] * state.world == config.accumulation * world:
        free.append("accumulation")
    if config.optim.min_lr_ratio == 1 and config.steps >= state.step:
        free.append("steps")
    changed = [
        f"{name} was {found.get(name)!r}, now {expected.get(name)!r}"
        for name in sorted(set(found) | set(expected))
        if found.get(name) != expected.get(name) and not name.startswith(tuple(free))
    ]
    if not changed and state.settings["accumulation"] * state.world != config.accumulation * world:
        changed = [f"the number of processes was {state.world}, now {world} with the same accumulation"]
    if changed:
        raise ConfigError(
            f"Cannot resume with other settings: {'; '.join(changed)}. "
            "Resume with those of the run, or start a new run from its weights (initial_weights)."
        )
    other = [
        f"{name} was {value!r}, now {identity.get(name)!r}"
        for name, value in state.identity.items()
        if identity.get(name) != value
    ]
    if other:
        raise ConfigError(
            f"Cannot resume with another cache or other weights: {'; '.join(other)}. "
            "Give those that the run began with, or start a new run from its weights (initial_weights)."
        )


def plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON values."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return found


def read_settings(run: PathLike) -> DistillConfig:
    """The settings that a run folder was begun with.

    Raises:
        CheckpointError: it is no run folder, or another version wrote it.
    """
    path = Path(run) / CONFIG
    try:
        found = read_json(path)["settings"]
        config = _restore(DistillConfig(), found)
    except FileNotFoundError:
        raise CheckpointError(
            f"{run} has no {CONFIG}, so it is no run folder. Give a folder that `train` wrote."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not hold settings that this version of distill3d knows ({error})."
        ) from error
    assert isinstance(config, DistillConfig)
    return config


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, child in value.items():
        found.update(flatten(child, f"{prefix}.{name}" if prefix else name))
    return found


def _restore(default: Any, found: Mapping[str, Any]) -> Any:
    values: dict[str, Any] = {}
    for name, value in found.items():
        current = getattr(default, name, None)
        if is_dataclass(current) and isinstance(value, Mapping):
            value = _restore(current, value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return type(default)(**values)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
