"""Where a student comes from: the settings, versions and labels of its run, and the licences that bind it."""

import datetime
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import distill3d
from distill3d import checkpoints, models
from distill3d.cache.format import CacheHeader
from distill3d.cache.reader import CacheReader
from distill3d.errors import CheckpointError
from distill3d.train.config import DistillConfig, RunConfig
from distill3d.train.parallel import Ranks
from distill3d.train.resume import plain

STUDENT = "student.safetensors"
LAST = "student-last.safetensors"


def versions() -> dict[str, str]:
    """Of what computes."""
    return {"distill3d": distill3d.__version__, "torch": torch.__version__, "python": platform.python_version()}


def describe_run(config: RunConfig, ranks: Ranks, parameters: int) -> dict[str, Any]:
    """What `config.json` says of every run: enough to know, and to repeat, what was done."""
    return {
        "settings": plain(config),
        "versions": versions(),
        "commit": git_commit(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": str(ranks.device),
        "processes": ranks.world,
        "threads": torch.get_num_threads(),
        "parameters": parameters,
    }


def save_student(
    out: Path,
    student: nn.Module,
    average: nn.Module | None,
    config: DistillConfig,
    readers: Sequence[CacheReader],
    scores: Mapping[str, float],
) -> None:
    """Write `student.safetensors`: the averaged weights if they are on (then the last ones go to `student-last`).

    Raises:
        OutputError: it cannot be written.
    """
    headers = [reader.header for reader in readers]
    meta = {
        "licence": checkpoints.all_licences(header.licence for header in headers),
        "licence_chain": licence_chain(config, headers),
        "teacher": ", ".join(dict.fromkeys(header.teacher for header in headers)),
        "cache": headers[0].plain(),
        "more_caches": [header.plain() for header in headers[1:]],
        "training": {"settings": plain(config), "versions": versions(), "commit": git_commit()},
        "validation": dict(scores),
    }
    model_config = models.get(config.student).variant(config.variant)
    finished = {STUDENT: student} if average is None else {STUDENT: average, LAST: student}
    for name, model in finished.items():
        checkpoints.save_model(out / name, model, model_name=config.student, config=model_config, meta=meta)


def licence_chain(config: DistillConfig, headers: Sequence[CacheHeader]) -> list[str]:
    """In words, everything whose licence the student inherits."""
    chain = list(dict.fromkeys(f"labels of teacher {header.teacher}: {header.licence}" for header in headers))
    if config.pretrained_encoder is not None:
        known = ", ".join(f"{name}: {licence}" for name, licence in models.get(config.student).licences.items())
        chain.append(f"encoder from {Path(config.pretrained_encoder).name}: that of its weights ({known or 'unknown'})")
    if config.initial_weights is not None:
        licence = _licence_of(config.student, config.initial_weights)
        chain.append(f"initial weights from {Path(config.initial_weights).name}: {licence}")
    return chain


def _licence_of(student: str, weights: str) -> str:
    """What our own file says of itself, or the registry of official weights."""
    try:
        return str(checkpoints.read_info(weights).meta.get("licence", "unknown"))
    except CheckpointError:
        return checkpoints.official_licence(models.get(student), weights)


def git_commit() -> str | None:
    """The commit of the checkout this package runs from, with "+changes" if its source differs; None elsewhere."""
    source = Path(__file__).resolve().parents[1]

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(source), *words], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # An installed copy may lie inside somebody's own checkout: only a tracked file makes it ours.
    if not ask("ls-files", "errors.py"):
        return None
    commit = ask("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and ask("status", "--porcelain", "--", ".") else commit
