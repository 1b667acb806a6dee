"""Results of a benchmark: averaged from stored values alone, and written as JSON, Markdown and LaTeX."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distill3d.errors import ConfigError, DataError
from distill3d.eval.benchmark import Average, Benchmark, Pooled, SampleScores
from distill3d.eval.scores import (
    common_reason,
    heading,
    jsonable,
    latex_table,
    mean_of,
    or_none,
    stored,
    table_cell,
)
from distill3d.files import read_json, write_json

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """One method on all samples."""

    values: Mapping[str, float]
    num_nan: Mapping[str, int]
    """Metric -> samples without a value (an empty mask, no camera); they are left out of the mean."""
    groups: Mapping[str, Mapping[str, float]]
    """The same averages for each group, where there are several."""
    samples: Mapping[str, SampleScores]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """All methods on the same samples, under one protocol and mode."""

    benchmark: str
    protocol: str
    """With the mode."""
    settings: Mapping[str, Any]
    """Data set, frames' hash, alignment, versions: whatever decides the numbers and is not the method's own."""
    methods: Mapping[str, MethodResult]
    skipped: Mapping[str, str]
    """Sample -> why it was not scored."""

    def rows(self) -> dict[str, dict[str, float | None]]:
        """Method -> metric -> value, None for NaN."""
        return {name: jsonable(method.values) for name, method in self.methods.items()}

    def save(self, path: Path) -> None:
        """Write everything as JSON; the same results give the same bytes.

        Raises:
            OutputError: the place takes no file.
        """
        write_json(
            path,
            {
                "format": FORMAT,
                "benchmark": self.benchmark,
                "protocol": self.protocol,
                "settings": dict(self.settings),
                "order": list(self.methods),
                "methods": {name: _method_json(method) for name, method in self.methods.items()},
                "skipped": dict(self.skipped),
            },
        )


def load_result(path: Path) -> BenchmarkResult:
    """Read what `BenchmarkResult.save` wrote.

    Raises:
        DataError: the file is absent, damaged, or of another format.
    """
    try:
        found = read_json(path)
        if found["format"] != FORMAT:
            raise DataError(
                f"{path} has results of format {found['format']}, this version reads {FORMAT}; score again."
            )
        return BenchmarkResult(
            benchmark=found["benchmark"],
            protocol=found["protocol"],
            settings=found["settings"],
            methods={name: _method_from_json(found["methods"][name]) for name in found["order"]},
            skipped=found["skipped"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no results of a benchmark ({error}); score the predictions again.") from error


def merge_results(results: Mapping[str, BenchmarkResult]) -> BenchmarkResult:
    """Put the methods of several result files of one benchmark into one table.

    Args:
        results: by a name for messages (the file).

    Raises:
        ConfigError: they differ in protocol, mode, samples or another setting, or name a method twice.
    """
    if not results:
        raise ConfigError("there are no results to put together")
    (first_name, first), *others = results.items()
    methods = dict(first.methods)
    for name, other in others:
        for what, ours, theirs in (
            ("protocol", first.protocol, other.protocol),
            ("settings", first.settings, other.settings),
        ):
            if ours != theirs:
                raise ConfigError(
                    f"{name} and {first_name} differ in {what} ({theirs} and {ours}); they need two tables."
                )
        twice = set(methods) & set(other.methods)
        if twice:
            raise ConfigError(f"{name} and {first_name} both have {', '.join(sorted(twice))}; give one another name.")
        methods |= other.methods
    return BenchmarkResult(
        benchmark=first.benchmark,
        protocol=first.protocol,
        settings=first.settings,
        methods=methods,
        skipped={key: reason for result in results.values() for key, reason in result.skipped.items()},
    )


def aggregate(
    benchmark: Benchmark, samples: Mapping[str, SampleScores], groups: Mapping[str, str], settings: Mapping[str, Any]
) -> MethodResult:
    """Average one method; `groups` names the group of every sample. NaN is left out and counted."""
    members: dict[str, dict[str, SampleScores]] = {}
    for key, scores in samples.items():
        members.setdefault(groups[key], {})[key] = scores
    of_groups = {
        name: _averages(benchmark.columns, inside, benchmark.average, benchmark.pooled)
        for name, inside in members.items()
    }
    if benchmark.average == "groups":
        values = {metric: mean_of([found[metric] for found in of_groups.values()]) for metric in benchmark.columns}
    else:
        values = _averages(benchmark.columns, samples, benchmark.average, benchmark.pooled)
    num_nan = {
        metric: sum(math.isnan(scores.values.get(metric, math.nan)) for scores in samples.values())
        for metric in benchmark.columns
        if any(metric in scores.values for scores in samples.values())
    }
    return MethodResult(
        values={metric: stored(value) for metric, value in values.items()},
        num_nan=num_nan,
        groups={name: {k: stored(v) for k, v in found.items()} for name, found in of_groups.items()}
        if len(of_groups) > 1
        else {},
        samples=dict(samples),
        settings=dict(settings),
    )


def _averages(
    columns: Mapping[str, Any], samples: Mapping[str, SampleScores], average: Average, pooled: Pooled | None
) -> dict[str, float]:
    values = {}
    for metric in columns:
        known = [
            (scores.values[metric], scores.weight)
            for scores in samples.values()
            if not math.isnan(scores.values.get(metric, math.nan))
        ]
        if average == "weighted":
            total = math.fsum(weight for _, weight in known)
            values[metric] = math.fsum(value * weight for value, weight in known) / total if total else math.nan
        else:
            values[metric] = mean_of([value for value, _ in known])
    if pooled is not None:
        names = {name: None for scores in samples.values() for name in scores.lists}
        joined = {
            name: np.array([value for scores in samples.values() for value in scores.lists.get(name, ())])
            for name in names
        }
        values |= pooled(joined) if joined else {}
    return values


def markdown(result: BenchmarkResult, benchmark: Benchmark, *, groups: bool = True) -> str:
    """A row per method, published rows beneath, the protocol and what was left out; then the groups by themselves."""
    shown = _shown(result, benchmark)
    lines = [
        f"### {benchmark.title}",
        "",
        "| method | " + " | ".join(heading(benchmark.columns[metric]) for metric in shown) + " |",
        "|---|" + "---:|" * len(shown),
    ]
    for name, method in result.methods.items():
        lines.append(f"| {name} | " + " | ".join(_cells(method.values, benchmark, shown)) + " |")
    for row in benchmark.published:
        lines.append(f"| *{row.method}, published* | " + " | ".join(_cells(row.values, benchmark, shown)) + " |")
    lines += [
        "",
        f"Protocol {result.protocol}, {result.settings['num_samples']} samples; {result.settings['alignment']}.",
    ]
    if result.skipped:
        lines.append(f"{len(result.skipped)} samples were not scored ({common_reason(result.skipped)}).")
    lines += [f"Published: {source}." for source in dict.fromkeys(row.source for row in benchmark.published)]
    for name, method in result.methods.items() if groups else ():
        lines += _group_table(name, method, benchmark, shown)
    return "\n".join(lines) + "\n"


def latex(result: BenchmarkResult, benchmark: Benchmark) -> str:
    """The same as a booktabs table; published rows in italics below a rule."""
    shown = _shown(result, benchmark)
    return latex_table(
        f"{result.benchmark}, protocol {result.protocol}, {result.settings['num_samples']} samples",
        [heading(benchmark.columns[metric]) for metric in shown],
        {name: _cells(method.values, benchmark, shown) for name, method in result.methods.items()},
        published={row.method: _cells(row.values, benchmark, shown) for row in benchmark.published},
    )


def _shown(result: BenchmarkResult, benchmark: Benchmark) -> list[str]:
    """Metrics that at least one row has."""
    every = [method.values for method in result.methods.values()] + [row.values for row in benchmark.published]
    return [name for name in benchmark.columns if any(not math.isnan(values.get(name, math.nan)) for values in every)]


def _cells(values: Mapping[str, float], benchmark: Benchmark, shown: list[str]) -> list[str]:
    return [table_cell(values.get(metric, math.nan), benchmark.columns[metric].digits) for metric in shown]


def _group_table(name: str, method: MethodResult, benchmark: Benchmark, shown: list[str]) -> list[str]:
    if not 1 < len(method.groups) <= 60:
        return []
    lines = [
        "",
        f"{name}, each by itself:",
        "",
        "| | " + " | ".join(heading(benchmark.columns[m]) for m in shown) + " |",
    ]
    lines.append("|---|" + "---:|" * len(shown))
    for group, values in method.groups.items():
        lines.append(f"| {group} | " + " | ".join(_cells(values, benchmark, shown)) + " |")
        for row in benchmark.published:
            if group in row.groups:
                cells = " | ".join(_cells(row.groups[group], benchmark, shown))
                lines.append(f"| {group}: *{row.method}, published* | {cells} |")
    return lines


def _method_json(method: MethodResult) -> dict[str, Any]:
    return {
        "settings": dict(method.settings),
        "values": jsonable(method.values),
        "num_nan": dict(method.num_nan),
        "groups": {name: jsonable(values) for name, values in method.groups.items()},
        "samples": {
            key: {
                "values": jsonable(scores.values),
                "lists": {name: [or_none(value) for value in values] for name, values in scores.lists.items()},
                "weight": scores.weight,
            }
            for key, scores in method.samples.items()
        },
    }


def _method_from_json(found: Mapping[str, Any]) -> MethodResult:
    def numbers(values: Mapping[str, float | None]) -> dict[str, float]:
        return {name: math.nan if value is None else float(value) for name, value in values.items()}

    samples = {
        key: SampleScores(
            values=numbers(sample["values"]),
            lists={
                name: tuple(math.nan if value is None else float(value) for value in values)
                for name, values in sample["lists"].items()
            },
            weight=sample["weight"],
        )
        for key, sample in found["samples"].items()
    }
    return MethodResult(
        values=numbers(found["values"]),
        num_nan=found["num_nan"],
        groups={name: numbers(values) for name, values in found["groups"].items()},
        samples=samples,
        settings=found["settings"],
    )
