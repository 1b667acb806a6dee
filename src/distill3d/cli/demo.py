"""`distill3d demo`: the whole chain on a place that needs no download, and a page about it.

Each stage is the function behind one verb and goes on where an interrupted run stopped, so the demo can be stopped and
called again.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from distill3d.cli.outcome import Outcome, parse_command
from distill3d.errors import ConfigError

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DemoSize:
    """How much of everything the demo makes."""

    num_train: int
    num_test: int
    groups: int
    """View groups that the teacher labels."""
    held_out: int
    """Groups that everything is scored on."""
    photos: int
    """Held-out photos in the reconstruction."""
    steps: int | None
    """Of training; None: as the recipe says."""


FULL = DemoSize(num_train=2000, num_test=240, groups=240, held_out=48, photos=12, steps=None)
QUICK = DemoSize(num_train=96, num_test=40, groups=10, held_out=4, photos=4, steps=30)
VIEWS, SCORED_VIEWS, REACH = 8, 4, 1.5


def demo(out: Path = Path("demo"), quick: bool = False, steps: int | None = None, seed: int = 0) -> Outcome:
    """Cache a teacher on photos of one place, distil a student of a million parameters, score it, reconstruct, report.

    Everything happens on this machine, without a network. The photos are rendered, the teacher is the small one that
    ships with the package and knows this place alone: the point is the chain, which is the same for your own photos.

    Args:
        out: folder for everything that is made.
        quick: a tiny version that proves the wiring in well under a minute and learns next to nothing.
        steps: training steps, if not those of the recipe.
        seed: of the view groups and the training.
    """
    began = time.monotonic()
    size = QUICK if quick else FULL
    if steps is not None:
        if steps < 1:
            raise ConfigError(f"--steps is {steps}, expected 1 or more.")
        size = replace(size, steps=steps)
    made = _Demo(out, size, seed)
    made.stage("render the place", made.render)
    made.stage("cache the teacher", made.cache)
    made.stage("distil the student", made.train)
    scores = made.stage("score held-out views", made.evaluate)
    files = made.stage("reconstruct held-out photos", made.reconstruct)
    report = made.stage("write the report", lambda: made.report(files))
    seconds = time.monotonic() - began
    times = "\n".join(f"  {name:<30}{spent:6.0f} s" for name, spent in made.times.items())
    text = "\n".join([scores.markdown(), times, f"  {'in all':<30}{seconds:6.0f} s", "", f"Look at {report}"])
    rows = {name: dict(row) for name, row in scores.rows().items()}
    return Outcome({"scores": rows, "seconds": made.times, "report": str(report), "files": files}, text)


class _Demo:
    """The folders of one demo, and the stages that fill them."""

    def __init__(self, out: Path, size: DemoSize, seed: int) -> None:
        from distill3d.data.fit import ImageFit

        self.out, self.size, self.seed = out, size, seed
        self.fit = ImageFit(long_side=112)
        self.times: dict[str, float] = {}

    def stage(self, name: str, work: Callable[[], T]) -> T:
        """Do one stage and note its time."""
        logger.info("\n%d/6 %s", len(self.times) + 1, name)
        began = time.monotonic()
        result = work()
        self.times[name] = round(time.monotonic() - began, 1)
        return result

    def render(self) -> None:
        """Photos of the place, with exact depth and cameras for the scores."""
        from distill3d.data.manifest import build_manifest
        from distill3d.data.render.write import render_place

        # Cameras of seed 0; the teacher was trained on photos from other cameras (see tools/place_teacher.sh).
        render_place(self.out / "place", num_train=self.size.num_train, num_test=self.size.num_test)
        self.manifest, _ = build_manifest(self.out / "place")
        self.manifest.save(self.out / "manifest.parquet")

    def cache(self) -> None:
        """What the teacher says about groups of views, to train on and to watch."""
        from distill3d import teachers

        self.teacher = teachers.load("place")
        self._cache_split("train", VIEWS, self.size.groups)
        self._cache_split("test", SCORED_VIEWS, min(16, self.size.held_out))

    def _cache_split(self, split: str, views: int, count: int) -> None:
        from distill3d.teachers.run import run_teacher

        groups = self._groups(split, views, count)
        settings = {"policy": "nearby", "views": views, "reach": REACH, "split": split, "groups": count}
        run_teacher(
            self.teacher,
            self.manifest,
            groups,
            self.out / f"cache-{split}",
            fit=self.fit,
            batch_size=4,
            resume=True,
            settings=settings,
            seed=self.seed,
        )

    def _groups(self, split: str, views: int, count: int) -> list[Any]:
        from distill3d.data.sampling import nearby

        return nearby(self.manifest, views, count=count, seed=self.seed, split=split, reach=REACH)

    def train(self) -> None:
        """The student, from the cache alone."""
        from distill3d.train.distil import train
        from distill3d.train.recipes import get_recipe
        from distill3d.train.resume import find_state

        config = replace(get_recipe("demo"), seed=self.seed)
        if self.size.steps is not None:
            config = replace(config, steps=self.size.steps)
        run = self.out / "run"
        train(
            config,
            self.out / "cache-train",
            run,
            validation_cache=self.out / "cache-test",
            resume=run if run.is_dir() and find_state(run) is not None else None,
        )

    def evaluate(self) -> Any:
        """Student, teacher and two trivial baselines on photos that none of them was trained on."""
        from distill3d.checkpoints import load_saved, weights_hash
        from distill3d.eval.run import Method, evaluate
        from distill3d.infer.reconstruct import predict

        self.student, _ = load_saved(self.out / "run")
        self.student.eval()
        methods = {
            "student": Method(
                predict=lambda views: predict(self.student, views),
                settings={"weights_hash": weights_hash(self.student)},
            ),
            "teacher": Method(predict=self.teacher.predict, settings={"weights_hash": self.teacher.weights_hash}),
        }
        return evaluate(
            methods,
            self.manifest,
            self._groups("test", SCORED_VIEWS, self.size.held_out),
            self.fit,
            self.out / "evaluation",
            canvas=(112, 112),
            train_groups=self._groups("train", SCORED_VIEWS, 60),
        )

    def reconstruct(self) -> dict[str, str]:
        """One point cloud from held-out photos."""
        from distill3d.data.groups import load_group
        from distill3d.export import export_reconstruction
        from distill3d.infer.reconstruct import reconstruct

        group = self._groups("test", self.size.photos, 1)[0]
        views = load_group(self.manifest, group, self.fit)
        names = [f"frame {frame}" for frame in group.frames]
        self.reconstruction = reconstruct(self.student, views, names=names, confidence_percentile=30.0)
        files = export_reconstruction(self.reconstruction, self.out / "reconstruction")
        return {kind: str(path) for kind, path in files.items()}

    def report(self, files: dict[str, str]) -> Path:
        """One page about all of it."""
        from distill3d.cache import CacheReader
        from distill3d.eval.run import load_evaluation
        from distill3d.viewer.assemble import assemble_report
        from distill3d.viewer.records import FactGroup
        from distill3d.viewer.report import write_report

        cache = CacheReader(self.out / "cache-train").describe()
        facts = [
            FactGroup(
                title="Cache",
                facts={
                    "view groups": str(cache["samples"]),
                    "views": str(cache["views"]),
                    "size": f"{cache['bytes'] / 1e6:.0f} MB, {cache['bytes_per_view'] / 1e3:.0f} kB a view",
                },
            ),
            FactGroup(title="Demo", facts={name: f"{spent:.0f} s" for name, spent in self.times.items()}),
            FactGroup(title="Files", facts=files),
        ]
        data = assemble_report(
            "A small model of one place",
            run=self.out / "run",
            evaluation=load_evaluation(self.out / "evaluation"),
            manifest=self.manifest,
            reconstruction=self.reconstruction,
            subtitle="distill3d demo",
            summary=SUMMARY,
            facts=facts,
        )
        return write_report(self.out / "report.html", data)


SUMMARY = """\
A teacher network looked once at groups of photos of one apartment; its pointmaps and confidences were kept in a \
cache. A student with fewer parameters was trained from that cache alone, and then scored on photos from other cameras.

Both networks know this one place and nothing else: on photos of anything else they are useless. The photos are \
rendered. What carries over is the chain: the same commands distil a large teacher on photos of your own.\
"""


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    return parse_command(demo, "demo", arguments)
