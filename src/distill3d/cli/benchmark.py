"""`distill3d evaluate --benchmark NAME`: one model under one protocol of the field."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distill3d.cli.outcome import Outcome
from distill3d.errors import ConfigError

if TYPE_CHECKING:
    from distill3d.eval.benchmark import Benchmark, Mode
    from distill3d.eval.run import Method
    from distill3d.eval.suite import Plan
    from distill3d.infer.network import Network
    from distill3d.types import Prediction, Views


TRUTH = "truth itself"
"""The row of the ceiling: what a perfect prediction gets."""


def evaluate_benchmark(
    name: str,
    model: str,
    *,
    data: Path | None,
    out: Path | None,
    compat: bool,
    metric: bool,
    limit: int | None,
    max_points: int | None,
    weights: str | None,
    variant: str | None,
    long_side: int | None,
    device: str,
) -> Outcome:
    """Predict, score and report; see `cli.evaluate` for the options."""
    from distill3d.eval import benchmark as registry
    from distill3d.eval.efficiency import EFFICIENCY, FEATURE_NORM

    if name == "list":
        return _list()
    for option, value in (("--limit", limit), ("--max-points", max_points)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} is {value}, expected 1 or more.")
    if name in (EFFICIENCY, FEATURE_NORM):
        from distill3d.cli.measures import measure

        return measure(
            name,
            model,
            weights=weights,
            variant=variant,
            long_side=long_side,
            device=device,
            out=out,
            most_views=limit,
            data=data,
        )
    from distill3d.devices import choose_device
    from distill3d.eval.results import markdown
    from distill3d.eval.run import LATEX, PREDICTIONS, SCORES, TABLE
    from distill3d.eval.suite import Plan, run_benchmark
    from distill3d.infer.network import open_network
    from distill3d.viewer.benchmark import benchmark_report
    from distill3d.viewer.report import write_report

    benchmark = registry.get(name)
    mode: Mode = "compat" if compat else "clean"
    benchmark.identity(mode)
    if benchmark.dataset is not None and data is None:
        raise ConfigError(f"{name} needs its data set: give the folder with --data (see docs/evaluation.md).")
    # Under torchrun each process has a device of its own.
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    network = open_network(model, weights=weights, variant=variant, device=chosen)
    side = long_side or (network.fit.long_side if network.fit is not None else benchmark.long_side)
    plan = Plan(
        benchmark=benchmark,
        root=data,
        folder=out or Path(f"evaluation-{name}-{mode}"),
        mode=mode,
        long_side=side,
        multiple=network.patch_size,
        limit=limit,
        max_points=max_points,
    )
    methods = {network.label: _method(network, metric)}
    if name == "synthetic":
        methods |= _baselines(plan)
    result = run_benchmark(plan, methods)
    if result is None:
        text = f"This process has predicted its share; the last one to finish writes the scores to {plan.folder}."
        return Outcome({"finished": False, "folder": str(plan.folder)}, text)
    report = write_report(plan.folder / "report.html", benchmark_report(result, plan))
    files = {
        "scores": str(plan.folder / SCORES),
        "table": str(plan.folder / TABLE),
        "latex": str(plan.folder / LATEX),
        "report": str(report),
        "predictions": str(plan.folder / PREDICTIONS),
    }
    data_out = {
        "benchmark": name,
        "protocol": result.protocol,
        "settings": dict(result.settings),
        "order": list(result.methods),
        "scores": result.rows(),
        "skipped": dict(result.skipped),
        "files": files,
    }
    shown = markdown(result, benchmark, groups=False)
    return Outcome(data_out, f"{shown}\n" + "\n".join(files[key] for key in ("scores", "table", "latex", "report")))


def _list() -> Outcome:
    from distill3d.eval import benchmark as registry
    from distill3d.eval.efficiency import EFFICIENCY, FEATURE_NORM

    found: dict[str, Benchmark] = {name: registry.get(name) for name in registry.names()}
    data = {
        name: {
            "title": benchmark.title,
            "protocol": benchmark.protocol,
            "dataset": benchmark.dataset,
            "modes": ["clean", "compat"] if benchmark.compat_differs else ["clean"],
        }
        for name, benchmark in found.items()
    }
    width = max(map(len, [*found, FEATURE_NORM])) + 2
    lines = [
        f"{name:<{width}}{benchmark.title}{' (clean, compat)' if benchmark.compat_differs else ''}"
        for name, benchmark in found.items()
    ]
    lines += [
        f"{EFFICIENCY:<{width}}time and peak memory for 12 to 128 views (measured here)",
        f"{FEATURE_NORM:<{width}}mean norm of an encoder's features (drift of fine-tuning)",
    ]
    return Outcome({"benchmarks": data}, "\n".join(lines))


def _method(network: "Network", metric: bool) -> "Method":
    from distill3d.eval.run import Method
    from distill3d.geometry.monocular import solve_affine

    def predict(views: "Views") -> "Prediction":
        said = network.predict(views)
        if getattr(network.model, "affine", False):
            said = solve_affine(said)
        if metric:
            said = dataclasses.replace(said, metric_scale=torch.ones(1, views.images.shape[1]))
        return said

    settings: dict[str, Any] = {**network.summary(), "metric": metric}
    return Method(predict=predict, settings=settings)


def _baselines(plan: "Plan") -> "dict[str, Method]":
    """What needs no network: mean pointmap and wall, learnt from other scenes of the same kinds, and the truth."""
    from distill3d import teachers
    from distill3d.eval.baselines import fit_baselines
    from distill3d.eval.benchmarks.synthetic import SIZE, TRAIN_SEED, photograph, samples_from
    from distill3d.eval.inputs import input_size, resize_views
    from distill3d.eval.run import BASELINES, Method

    size = input_size(SIZE, plan.long_side, plan.multiple)
    samples = samples_from(TRAIN_SEED)[: plan.limit]
    scenes = (photograph(sample.notes["kind"], sample.notes["seed"]) for sample in samples)
    fitted = fit_baselines(resize_views(views, size) for views in scenes)
    answers = (fitted.mean_pointmap, fitted.constant_depth)
    settings = {"first_seed": TRAIN_SEED, "scenes": len(samples)}
    made = {name: Method(predict=answer, settings=settings) for name, answer in zip(BASELINES, answers, strict=True)}
    exact = teachers.load("ground-truth", noise=0.0, seed=0)
    return made | {TRUTH: Method(predict=exact.predict, settings=exact.settings(), sees_truth=True)}
