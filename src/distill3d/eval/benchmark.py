"""What a benchmark is: which samples, what is shown to the network, how the answer is scored, and what others report.

To add one, write `benchmarks/<name>.py` with `BENCHMARKS`, a tuple of `Benchmark`. Its functions are pure; the runner
(`suite`) does the rest: predictions on disk, resuming, sharding, scoring beside prediction, tables and reports.

A protocol has up to two modes. `clean` is what the protocol means; `compat` repeats what the reference program does
where that differs, for numbers that stand beside published ones. The mode is part of every result, and results of two
modes are never put into one table.
"""

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill3d.data.rows import ManifestRow
from distill3d.errors import ConfigError
from distill3d.eval.scores import Column
from distill3d.types import Prediction, Views

Mode = Literal["clean", "compat"]
Average = Literal["samples", "weighted", "groups"]
"""Mean over samples; the same weighted by their pixels; mean over the means of groups (sets, categories)."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is looked at in one go: one photo, a pair, a sequence."""

    key: str
    """Unique in the benchmark."""
    group: str = ""
    """Set, category or sequence, for averages."""
    rows: tuple[ManifestRow, ...] = ()
    """Frames, in the order in which they are shown."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the benchmark needs to load or score it, ready for JSON."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A sample with everything that is known about it, at the size at which the protocol scores."""

    views: Views
    """Batch of 1; poses as the protocol takes them."""
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SampleScores:
    """One method on one sample."""

    values: Mapping[str, float]
    """Metric -> value; NaN where it has no meaning here."""
    lists: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Errors that are pooled over samples before anything is computed from them, and curves."""
    weight: float = 1.0
    """Valid pixels, where the average is weighted by them."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of a paper, copied; shown beside ours and never ranked with it."""

    method: str
    values: Mapping[str, float]
    source: str
    """Table and paper, and what is known to differ from this protocol."""
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Group -> the paper's values for it alone, where it gives them."""


Pooled = Callable[[Mapping[str, np.ndarray]], Mapping[str, float]]
"""From the lists of all samples, joined, to metrics."""


PredictSome = Callable[[Sequence[int]], Prediction]
"""What a network says when it sees some of the frames of a sample, in that order."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One protocol on one data set."""

    name: str
    title: str
    protocol: str
    """Id with a version, without the mode; a change of any definition gets a new one."""
    columns: Mapping[str, Column]
    """Every metric, in the order of the table."""
    list_samples: Callable[[Path | None, int | None], Sequence[Sample]]
    """Called with the folder of the data set and a limit of samples; raises `DataError` in words."""
    load: Callable[[Sample, Path | None, Mode], Scene]
    score: Callable[[Prediction, Scene, Sample, Mode], SampleScores]
    """The prediction is at the size that the network was shown."""
    dataset: str | None = None
    """Name of the loader in `data.datasets`, or what else has to lie in the folder; None makes its own scenes."""
    pooled: Pooled | None = None
    average: Average = "samples"
    published: tuple[Published, ...] = ()
    long_side: int = 518
    """Pixels of the longer side that a network is shown, unless it was trained for another size."""
    alignment: str = ""
    """In words, for the result file."""
    compat_differs: str = ""
    """What `compat` repeats of the reference program; empty where the modes are the same, and then only `clean` is
    offered."""
    views_per_call: Literal["all", "one"] = "all"
    """Whether the network sees the frames of a sample together or one by one."""
    choose: Callable[[PredictSome, Scene], Prediction] | None = None
    """Where a protocol looks for the frames that serve best: called in place of the network, with the network."""

    def identity(self, mode: Mode) -> str:
        """Protocol id with the mode.

        Raises:
            ConfigError: the protocol has no such mode.
        """
        if mode == "compat" and not self.compat_differs:
            raise ConfigError(f"{self.name} has no quirks of a reference program to repeat; leave out --compat.")
        return f"{self.protocol}+{mode}" if self.compat_differs else self.protocol


def names() -> list[str]:
    """Every benchmark, in alphabetical order."""
    return sorted(_registry())


def get(name: str) -> Benchmark:
    """The benchmark called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    found = _registry()
    if name not in found:
        near = [other for other in sorted(found) if name in other][:8] or difflib.get_close_matches(name, found, n=5)
        others = f"{', '.join(near)}, or one that --benchmark list names" if near else ", ".join(sorted(found))
        raise ConfigError(f"There is no benchmark {name!r}; choose one of: {others}.")
    return found[name]


@functools.cache
def _registry() -> dict[str, Benchmark]:
    from distill3d.eval import benchmarks

    modules = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")]
    every = [
        benchmark
        for module in modules
        for benchmark in importlib.import_module(f"{benchmarks.__name__}.{module}").BENCHMARKS
    ]
    return {benchmark.name: benchmark for benchmark in every}
