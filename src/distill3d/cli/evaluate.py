"""`distill3d evaluate`: a model on held-out views beside its teacher and baselines, or on a benchmark of the field."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill3d.cli.cache.build import Policy, choose_groups
from distill3d.cli.outcome import Outcome, parse_command
from distill3d.errors import ConfigError, DataError

if TYPE_CHECKING:
    from distill3d.eval.run import Method
    from distill3d.eval.scores import HeldoutScores

SHIPPED = "place"
"""What a benchmark scores if no model is named."""
MODEL = "student"
"""The row of the model."""
DEFAULT_VIEWS = 4


def evaluate(
    model: str | None = None,
    manifest: Path | None = None,
    out: Path | None = None,
    benchmark: str | None = None,
    data: Path | None = None,
    compat: bool = False,
    metric: bool = False,
    limit: int | None = None,
    max_points: int | None = None,
    weights: str | None = None,
    variant: str | None = None,
    teacher: tuple[str, ...] = (),
    teacher_weights: str | None = None,
    noise: float | None = None,
    split: str | None = "test",
    policy: Policy = "nearby",
    views: int = DEFAULT_VIEWS,
    groups: int = 100,
    reach: float = 1.5,
    stride: int = 2,
    seed: int = 0,
    train_split: str | None = "train",
    train_groups: int = 100,
    reference: str | None = None,
    long_side: int | None = None,
    mode: Literal["pad", "crop"] | None = None,
    device: str = "auto",
    root: Path | None = None,
) -> Outcome:
    """Score a model on held-out groups of your own views beside teachers and baselines, or on a benchmark of the field.

    In two steps, each of which can be redone alone: predictions/METHOD/ keeps what every method said, and a second
    call takes what is there; scores.json and scores.md are always made anew from the predictions. With --benchmark the
    frames, sizes and alignments are those of the benchmark, and report.html shows maps, clouds and curves.

    Args:
        model: a run folder, a weight file, a shipped network (place), or an architecture with --weights.
        manifest: Parquet file of `distill3d manifest build`, of frames with depth and cameras.
        out: folder for predictions/, scores.json, scores.md, scores.tex and evaluation.json.
        benchmark: a protocol of docs/evaluation.md: synthetic needs no data, and scores the shipped network if no model
            is named; "list" names them all.
        data: folder of the benchmark's data set.
        compat: repeat what the benchmark's reference program does where it differs from what its protocol means.
        metric: the model's lengths are metres (for the metric disciplines of monocular).
        limit: at most so many samples of the benchmark; the results say so.
        max_points: for quick looks at a benchmark: known pixels of a sample that are scored, at most; the protocol's id
            says so.
        weights: where --model is an architecture: its weights, a file, run folder or hub id.
        variant: of the architecture, for official weights.
        teacher: teachers to score on the same groups: place, ground-truth, a weight file or run folder, a model.
        teacher_weights: weights of a teacher that is an architecture.
        noise: of the ground-truth teacher: 0 exact, 1 as a decent network.
        split: frames to score on: test, train, or None for all.
        policy: how views are grouped. nearby needs camera poses.
        views: views in a group.
        groups: at most so many groups.
        reach: for nearby: how far apart views of a group may stand and look.
        stride: for strided: every so many frames.
        seed: of the grouping and of the teachers' draws.
        train_split: frames that the two trivial baselines are made from.
        train_groups: groups of these; 0 leaves the baselines out.
        reference: a row to take for the truth where photos have none (say "teacher"): measures agreement.
        long_side: pixels of the longer side of every photo; as the model was trained if its weights tell, else 518.
        mode: pad or crop; as trained if the weights tell, else pad.
        device: auto, cpu, cuda, ...
        root: where the files of the manifest are now, if they were moved.
    """
    from distill3d.data.groups import manifest_canvas
    from distill3d.data.table import load_manifest
    from distill3d.devices import choose_device
    from distill3d.eval import run
    from distill3d.infer.network import open_network

    if benchmark is not None:
        from distill3d.cli.benchmark import evaluate_benchmark

        return evaluate_benchmark(
            benchmark,
            model or SHIPPED,
            data=data,
            out=out,
            compat=compat,
            metric=metric,
            limit=limit,
            max_points=max_points,
            weights=weights,
            variant=variant,
            long_side=long_side,
            device=device,
        )
    if model is None or manifest is None or out is None:
        raise ConfigError(
            "Say what to evaluate: --model, --manifest and --out for views of your own, or --benchmark "
            "(--benchmark synthetic needs nothing else; --benchmark list names them all)."
        )
    if groups < 1 or views < 1 or train_groups < 0:
        raise ConfigError(
            f"--groups {groups}, --views {views}, --train-groups {train_groups}: expected 1, 1, 0 or more."
        )
    chosen_device = choose_device(device)
    network = open_network(model, weights=weights, variant=variant, device=chosen_device)
    table = load_manifest(manifest, root)
    how: dict[str, Any] = {"views": views, "stride": stride, "reach": reach, "seed": seed}
    held_out = choose_groups(table, policy, count=groups, split=split, **how)
    learned = []
    if train_groups:
        try:
            learned = choose_groups(table, policy, count=train_groups, split=train_split, **how)
        except DataError as error:
            raise DataError(
                f"The baselines have nothing to learn from; --train-groups 0 leaves them out. {error}"
            ) from error
    fit = network.choose_fit(long_side, mode)
    methods: dict[str, Method] = {MODEL: run.Method(predict=network.predict, settings=network.summary())}
    for name in teacher:
        row = "teacher" if len(teacher) == 1 else f"teacher {name}"
        methods[row] = _teacher(name, teacher_weights, noise, seed, str(chosen_device))
    scores = run.evaluate(
        methods,
        table,
        held_out,
        fit,
        out,
        canvas=manifest_canvas(table, fit),  # one for all splits: the baselines compare pixel with pixel
        train_groups=learned,
        reference=reference,
    )
    files = {"scores": str(out / run.SCORES), "table": str(out / run.TABLE), "predictions": str(out / run.PREDICTIONS)}
    found = {
        "protocol": scores.protocol,
        "settings": dict(scores.settings),
        "order": list(scores.methods),
        "scores": scores.rows(),
        "skipped": dict(scores.skipped),
        "files": files,
    }
    return Outcome(found, f"{score_table(scores)}\n\n{files['scores']}\n{files['table']}")


def _teacher(name: str, weights: str | None, noise: float | None, seed: int, device: str) -> "Method":
    from distill3d import teachers
    from distill3d.eval.run import Method

    is_truth = name.replace("_", "-") == "ground-truth"
    options: dict[str, Any] = {"seed": seed}
    options |= {"noise": noise} if is_truth else {"weights": weights, "device": device}
    made = teachers.load(name, **{key: value for key, value in options.items() if value is not None})
    settings = {
        "teacher": made.name,
        "weights_sha256": made.weights_hash,
        "licence": made.licence,
        "settings": made.settings(),
    }
    return Method(predict=made.predict, settings=settings, sees_truth=is_truth)


def score_table(scores: "HeldoutScores") -> str:
    """The scores for a terminal: a line per metric, a column per method, the best of those that compete starred."""
    from distill3d.eval.scores import COLUMNS

    names = list(scores.methods)
    width = max(10, *(len(name) + 2 for name in names))
    lines = [" " * 26 + "".join(f"{name:>{width}}" for name in names)]
    for metric, column in COLUMNS.items():
        values = {name: method.values[metric] for name, method in scores.methods.items()}
        if metric == "missing" and not any(values.values()):
            continue
        # A teacher does not compete with its student.
        racing = [value for name, value in values.items() if not name.startswith("teacher") and not math.isnan(value)]
        best = (min if column.better == "lower" else max)(racing) if len(set(racing)) > 1 else None
        cells = [
            "-" if math.isnan(value) else f"{value:.{column.digits}f}" + ("*" if value == best else " ")
            for value in values.values()
        ]
        unit = f" {column.unit.split(',')[0]}" if column.unit.startswith("°") else ""
        arrow = "↓" if column.better == "lower" else "↑"
        lines.append(f"{column.label + unit + ' ' + arrow:<26}" + "".join(f"{cell:>{width}}" for cell in cells))
    count = scores.settings["num_groups"]
    lines.append(f"{count} held-out groups, protocol {scores.protocol}; * best, teachers apart; angles are medians")
    if scores.skipped:
        from distill3d.eval.scores import common_reason

        lines.append(f"{len(scores.skipped)} groups could not be scored: {common_reason(scores.skipped)}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    return parse_command(evaluate, "evaluate", arguments)
