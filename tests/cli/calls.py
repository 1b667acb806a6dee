"""Command lines carried out in this process, and the small chain that most tests of commands look at."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill3d import cli, models
from distill3d.checkpoints import save_model

SIZE = 56
TRAIN_OPTIONS = (
    "--variant", "tiny", "--no-mean-map-start", "--views", "2", "--batch", "2", "--no-tensorboard",
    "--validation.every-steps", "0",
)  # fmt: skip
"""After `train demo`: the smallest student."""


@dataclass(frozen=True)
class Called:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The result of a call with --json."""
        return json.loads(self.out)


def call(*words: object) -> Called:
    """Carry out `distill3d WORDS...`; wrong arguments, which end the program, give their code as well."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.run([str(word) for word in words])
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Called(code, out.getvalue(), err.getvalue())


def succeed(*words: object) -> Any:
    """Carry out a command line that must end well, and give its result for machines."""
    called = call(*words, "--json")
    assert called.code == 0, called.err
    return called.data


def build_cache(manifest: Path, out: Path, *more: object) -> Called:
    """Exact labels of four groups of three views."""
    how = ("--policy", "nearby", "--views", 3, "--groups", 4, "--fit.long-side", SIZE)
    return call("cache", "build", "--manifest", manifest, "--out", out, *how, *more, "--json")


def train(cache: Path, out: Path, *more: object) -> Called:
    """Four steps of the smallest student, or what else is asked for."""
    return call("train", "demo", "--cache", cache, "--out", out, *TRAIN_OPTIONS, "--steps", 4, *more, "--json")


def evaluate(run: Path, manifest: Path, out: Path, *more: object) -> Called:
    """Three held-out groups of two views, beside the truth and the baselines."""
    how = ("--groups", 3, "--views", 2, "--train-groups", 3, "--teacher", "ground-truth", "--noise", 1)
    return call("evaluate", "--model", run, "--manifest", manifest, "--out", out, *how, *more, "--json")


def save_fresh_student(path: Path, variant: str = "tiny") -> Path:
    """A weight file of a student that has learned nothing."""
    spec = models.get("distill3r")
    config = spec.variant(variant)
    student = spec.build(config)
    # A random network may put every point behind its camera; a shift makes sure that there is something to see.
    with torch.no_grad():
        for head in (student.head_world, student.head_camera):
            head.last.bias.add_(torch.tensor([0.0, 0.0, 1.0, 0.0]).repeat_interleave(len(head.last.bias) // 4))
    meta = {"licence": "CC0-1.0", "cache": {"image_fit": {"long_side": SIZE, "multiple": 14, "mode": "pad"}}}
    return save_model(path, student, model_name="distill3r", config=config, meta=meta)
