"""Run a benchmark: predictions to disk, scores beside them, and everything written when all samples are there.

Both steps resume: a prediction that exists is taken, scores are always made anew. Under torchrun each process predicts
its share of the samples, and the last one to finish scores. While one sample is scored the next is predicted.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import distill3d
from distill3d.data.rows import natural_key
from distill3d.errors import DataError, GeometryError
from distill3d.eval.benchmark import Benchmark, Mode, Sample, SampleScores, Scene
from distill3d.eval.inputs import input_size, resize_images
from distill3d.eval.predictions import FORMAT, claim_folder, load_prediction, save_prediction
from distill3d.eval.results import BenchmarkResult, aggregate, latex, load_result, markdown, merge_results
from distill3d.eval.run import LATEX, PREDICTIONS, SCORES, TABLE, Method, slug
from distill3d.files import atomic_write_bytes
from distill3d.progress import ProgressBar
from distill3d.types import Prediction, Views, collate_views

logger = logging.getLogger(__name__)

_WAITING = 2
"""Samples whose scores may be outstanding: their maps are in memory."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run, on what, and how photos are shown to the network."""

    benchmark: Benchmark
    root: Path | None
    folder: Path
    """Gets predictions/METHOD/, scores.json, scores.md and scores.tex."""
    mode: Mode = "clean"
    long_side: int = 518
    multiple: int = 14
    limit: int | None = None
    """At most so many samples; told in the results."""
    max_points: int | None = None
    """For quick looks: at most so many known pixels of a sample, evenly chosen, are scored; part of the protocol id."""

    def samples(self) -> list[Sample]:
        """The samples, in a fixed order.

        Raises:
            DataError: the data set is not there, or holds none.
        """
        found = list(self.benchmark.list_samples(self.root, self.limit))
        if not found:
            raise DataError(f"{self.root} holds no sample of {self.benchmark.title}.")
        return found

    def settings(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What all methods of one table share."""
        listed = [[sample.key, [[row.scene, row.frame] for row in sample.rows], sample.notes] for sample in samples]
        return {
            "benchmark": self.benchmark.name,
            "protocol": self.protocol(),
            "samples_sha256": hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest(),
            "num_samples": len(samples),
        }

    def protocol(self) -> str:
        """Id with everything that changes what the numbers mean."""
        return self.benchmark.identity(self.mode) + ("" if self.max_points is None else f"+points{self.max_points}")

    def load(self, sample: Sample) -> Scene:
        """A scene, thinned out if that was asked for."""
        scene = self.benchmark.load(sample, self.root, self.mode)
        depth = scene.views.depth
        if self.max_points is None or depth is None:
            return scene
        known = torch.nonzero(torch.isfinite(depth.flatten()) & (depth.flatten() > 0))[:, 0]
        places = torch.linspace(0, max(len(known) - 1, 0), min(self.max_points, len(known)), dtype=torch.float64)
        kept = torch.zeros_like(depth.flatten())
        chosen = known[places.round().long()]
        kept[chosen] = depth.flatten()[chosen]
        return replace(scene, views=replace(scene.views, depth=kept.view(depth.shape)))

    def of_method(self, method: Method) -> dict[str, Any]:
        """A method's own settings, with the size at which photos are shown to it."""
        return {**method.settings, "input": {"long_side": self.long_side, "multiple": self.multiple}}


def run_benchmark(plan: Plan, methods: Mapping[str, Method]) -> BenchmarkResult | None:
    """Predict what is missing and score everything; None if other processes are still predicting.

    Methods that the folder's results have already keep their rows, so that several models come into one table.

    Raises:
        ConfigError: the folder holds predictions made with other settings, or results of another protocol or mode.
        DataError: the data set is not there, or not one sample can be scored.
    """
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    samples = plan.samples()
    settings = plan.settings(samples)
    folders = {name: plan.folder / PREDICTIONS / slug(name) for name in methods}
    for name, method in methods.items():
        claim_folder(folders[name], {"format": FORMAT, **settings, "method": plan.of_method(method)})
    if world > 1:
        for _ in _visit(plan, samples[rank::world], methods, folders, "predicting", keep=False):
            pass
        if not all(_is_done(folders[name], sample) for name in methods for sample in samples):
            return None
    scored: dict[str, dict[str, SampleScores]] = {name: {} for name in methods}
    skipped: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: list[tuple[str, str, Future[SampleScores]]] = []
        for sample, scene, answers in _visit(plan, samples, methods, folders, "evaluating"):
            if isinstance(scene, str):
                skipped[sample.key] = scene
                continue
            for name, prediction in answers.items():
                task = pool.submit(plan.benchmark.score, prediction, scene, sample, plan.mode)
                waiting.append((name, sample.key, task))
            while len(waiting) > _WAITING * len(methods):
                name, key, task = waiting.pop(0)
                scored[name][key] = task.result()
        for name, key, task in waiting:
            scored[name][key] = task.result()
    if not any(scored.values()):
        reason = next(iter(skipped.values()), "there are none")
        raise DataError(f"Not one of {len(samples)} samples of {plan.benchmark.title} can be scored: {reason}")
    groups = {sample.key: sample.group for sample in samples}
    result = BenchmarkResult(
        benchmark=plan.benchmark.name,
        protocol=plan.protocol(),
        settings={
            **settings,
            "dataset": plan.benchmark.dataset or "made here",
            "alignment": plan.benchmark.alignment,
            "versions": _versions(),
        },
        methods={
            name: aggregate(plan.benchmark, found, groups, plan.of_method(methods[name]))
            for name, found in scored.items()
        },
        skipped=skipped,
    )
    result = _beside_earlier(result, plan.folder / SCORES)
    result.save(plan.folder / SCORES)
    atomic_write_bytes(plan.folder / TABLE, markdown(result, plan.benchmark).encode())
    atomic_write_bytes(plan.folder / LATEX, latex(result, plan.benchmark).encode())
    return result


def _beside_earlier(result: BenchmarkResult, path: Path) -> BenchmarkResult:
    if not path.exists():
        return result
    earlier = load_result(path)
    others = {name: method for name, method in earlier.methods.items() if name not in result.methods}
    return merge_results({str(path): replace(earlier, methods=others), "this run": result}) if others else result


def stored_prediction(plan: Plan, method: str, sample: Sample) -> Prediction:
    """What a method answered.

    Raises:
        DataError: nothing is stored, or it is damaged.
    """
    return load_prediction(_path(plan.folder / PREDICTIONS / slug(method), sample))


def _visit(
    plan: Plan,
    samples: Sequence[Sample],
    methods: Mapping[str, Method],
    folders: Mapping[str, Path],
    words: str,
    *,
    keep: bool = True,
) -> Iterator[tuple[Sample, Scene | str, dict[str, Prediction]]]:
    """Go through the samples with every method's answer; a reason in place of the scene where it cannot be read."""
    with ProgressBar(f"{words} {plan.benchmark.name}", total=len(samples), unit="samples") as bar:
        for sample in samples:
            bar.advance()
            if not keep and all(_path(folder, sample).exists() for folder in folders.values()):
                continue
            try:
                scene = plan.load(sample)
            except (DataError, GeometryError) as error:
                logger.warning("sample %s is skipped: %s", sample.key, error)
                for folder in folders.values():
                    atomic_write_bytes(_path(folder, sample).with_suffix(".skipped"), str(error).encode())
                yield sample, str(error), {}
                continue
            answers = {}
            for name, method in methods.items():
                path = _path(folders[name], sample)
                if not path.exists():
                    save_prediction(path, _answer(plan, method, scene))
                if keep:
                    answers[name] = load_prediction(path)
            yield sample, scene, answers


def _answer(plan: Plan, method: Method, scene: Scene) -> Prediction:
    views = scene.views
    size = input_size((views.images.shape[-2], views.images.shape[-1]), plan.long_side, plan.multiple)
    images = resize_images(views.images, size)
    if method.sees_truth:
        return method.predict(views)
    if plan.benchmark.choose is not None:
        return plan.benchmark.choose(lambda chosen: method.predict(Views(images=images[:, list(chosen)])), scene)
    if plan.benchmark.views_per_call == "all":
        return method.predict(Views(images=images))
    return collate_views([method.predict(Views(images=images[:, view : view + 1])) for view in range(images.shape[1])])


def _path(folder: Path, sample: Sample) -> Path:
    name = slug(sample.key)
    # Two keys may give one slug; and names have a length that file systems bear.
    return folder / f"{name[:80]}-{hashlib.sha256(sample.key.encode()).hexdigest()[:8]}.safetensors"


def _is_done(folder: Path, sample: Sample) -> bool:
    path = _path(folder, sample)
    return path.exists() or path.with_suffix(".skipped").exists()


def _versions() -> dict[str, str]:
    return {
        "distill3d": distill3d.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: importlib.metadata.version(name) for name in ("numpy", "scipy")},
    }


def by_name(samples: Sequence[Sample]) -> list[Sample]:
    """Samples in the natural order of their keys."""
    return sorted(samples, key=lambda sample: natural_key(sample.key))
