"""A whole evaluation in one folder: predictions of every method, scores, and what is needed to look at them again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distill3d.data.fit import ImageFit, Size
from distill3d.data.groups import load_group
from distill3d.data.sampling import ViewGroup
from distill3d.data.table import Manifest
from distill3d.errors import ConfigError
from distill3d.eval.baselines import fit_baselines
from distill3d.eval.heldout import score_heldout
from distill3d.eval.predictions import (
    Predictor,
    load_prediction,
    predict_heldout,
    predict_with_truth,
    prediction_path,
)
from distill3d.eval.scores import HeldoutScores, load_scores
from distill3d.files import PathLike, atomic_write_bytes, read_json, write_json
from distill3d.types import Prediction, Views

FORMAT = 1
PLAN, PREDICTIONS = "evaluation.json", "predictions"
SCORES, TABLE, LATEX = "scores.json", "scores.md", "scores.tex"
BASELINES = ("mean pointmap", "constant depth")


@dataclass(frozen=True, kw_only=True)
class Method:
    """Something that answers, and what decides its answers."""

    predict: Predictor
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Weights hash, options, ready for JSON: predictions made with other settings are refused."""
    sees_truth: bool = False
    """For a teacher that is made from depth and cameras."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedGroups:
    """The stored half of an evaluation: which groups were looked at, how, and where the answers lie."""

    folder: Path
    groups: tuple[ViewGroup, ...]
    fit: ImageFit
    canvas: Size | None
    methods: tuple[str, ...]

    def prediction(self, method: str, group: ViewGroup) -> Prediction:
        """What a method answered about a group.

        Raises:
            ConfigError: the method was not asked.
        """
        if method not in self.methods:
            raise ConfigError(f"{self.folder} has no method {method!r}; it has {', '.join(self.methods)}.")
        return load_prediction(prediction_path(self.folder / PREDICTIONS / slug(method), group))

    def views(self, manifest: Manifest, group: ViewGroup) -> Views:
        """The photos and the truth of a group, as the methods saw them (but for the truth)."""
        return load_group(manifest, group, self.fit, canvas=self.canvas)

    def scores(self) -> HeldoutScores:
        """The scores beside the predictions."""
        return load_scores(self.folder / SCORES)


def evaluate(
    methods: Mapping[str, Method],
    manifest: Manifest,
    groups: Sequence[ViewGroup],
    fit: ImageFit,
    folder: PathLike,
    *,
    canvas: Size | None = None,
    train_groups: Sequence[ViewGroup] = (),
    reference: str | None = None,
) -> HeldoutScores:
    """Let every method predict the held-out groups, then score them all; a second call goes on where it stopped.

    Args:
        methods: by the name of their row.
        manifest: where the groups come from.
        groups: held out from training.
        fit: how photos are laid out.
        folder: gets `predictions/<method>/`, `scores.json`, `scores.md`, `scores.tex` and `evaluation.json`.
        canvas: (height, width) of all groups; needed for the baselines.
        train_groups: what the two trivial baselines are made from; none: no baselines.
        reference: a method to take for the truth where the photos have none.

    Raises:
        ConfigError: the folder holds predictions made with other settings, or no such reference.
        DataError: not one group can be scored, or the baselines have nothing to learn from.
    """
    folder = Path(folder)
    asked = dict(methods)
    if train_groups:
        baselines = fit_baselines(load_group(manifest, group, fit, canvas=canvas) for group in train_groups)
        made_from = {"train_groups": [group.key for group in train_groups]}
        answers = (baselines.mean_pointmap, baselines.constant_depth)
        asked |= {
            name: Method(predict=answer, settings=made_from) for name, answer in zip(BASELINES, answers, strict=True)
        }
    if reference is not None and reference not in asked:
        raise ConfigError(f"The reference {reference!r} is not among the methods: {', '.join(asked)}.")
    folders = {name: folder / PREDICTIONS / slug(name) for name in asked}
    for name, method in asked.items():
        run = predict_with_truth if method.sees_truth else predict_heldout
        run(method.predict, manifest, groups, fit, folders[name], canvas=canvas, settings=method.settings)
    scores = score_heldout(
        folders,
        manifest,
        groups,
        fit,
        canvas=canvas,
        reference=None if reference is None else folders[reference],
    )
    plan = {
        "format": FORMAT,
        "groups": [{"scene": group.scene, "frames": list(group.frames)} for group in groups],
        "fit": asdict(fit),
        "canvas": None if canvas is None else list(canvas),
        "methods": list(asked),
    }
    write_json(folder / PLAN, plan)
    scores.save(folder / SCORES)
    atomic_write_bytes(folder / TABLE, scores.markdown().encode())
    atomic_write_bytes(folder / LATEX, scores.latex().encode())
    return scores


def load_evaluation(folder: PathLike) -> EvaluatedGroups:
    """Open a finished evaluation.

    Raises:
        ConfigError: there is none in the folder, or it was written by a newer version.
    """
    folder = Path(folder)
    if not (folder / PLAN).is_file():
        raise ConfigError(f"{folder} holds no finished evaluation ({PLAN} is missing). Run `distill3d evaluate` first.")
    plan = read_json(folder / PLAN)
    if plan.get("format") != FORMAT:
        raise ConfigError(
            f"{folder / PLAN} has format {plan.get('format')}; this version reads {FORMAT}. Update distill3d, or "
            "evaluate again."
        )
    return EvaluatedGroups(
        folder=folder,
        groups=tuple(ViewGroup(group["scene"], tuple(group["frames"])) for group in plan["groups"]),
        fit=ImageFit(**plan["fit"]),
        canvas=None if plan["canvas"] is None else (plan["canvas"][0], plan["canvas"][1]),
        methods=tuple(plan["methods"]),
    )


def slug(name: str) -> str:
    """A method's name as a folder."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
