"""The pass on many machines: Ray workers make the samples, one process writes them in the order of one machine.

A worker is an actor with the teacher on its GPU (or its share of a CPU) and a `Pipeline` of its own; it keeps nothing.
The driver hands each batch to the worker that has the fewest. A worker that dies costs the batches it had: these are
made again elsewhere, with the same bytes, since a sample depends on its views alone. Workers that join get their share.
"""

import contextlib
import importlib
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from distill3d.data.table import Manifest
from distill3d.errors import ConfigError, Distill3dError
from distill3d.teachers import Teacher
from distill3d.teachers.run.making import Batch, LabelMaker, Made, Recipe
from distill3d.teachers.run.pipeline import Pipeline

logger = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
"""So often the cluster is asked for machines that joined."""
PATIENCE_SECONDS = 600.0
"""So long a run without any worker waits for one."""
MOST_DEATHS = 5
"""A batch whose workers died so often is left out; workers that die so often while they start end the run."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Makes samples on a Ray cluster; an engine of `run_teacher`, which stays the only writer of the cache."""

    build: Callable[[], Teacher]
    """Makes the teacher on a worker. What it needs (weights, photos) must have the same path on every machine."""
    address: str | None = None
    """Of a running cluster ("auto": the one of this machine); `None` starts one on this machine for the run."""
    workers: int | None = None
    """Actors to ask for; `None` for as many as the machines can hold at any time."""
    gpus: float = 0.0
    """Of each worker."""
    cpus: float = 1.0
    """Of each worker: threads that decode, and as many that encode."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"ray_workers is {self.workers}; expected at least 1, or None for all there is room for")
        if self.cpus <= 0 or self.gpus < 0:
            raise ConfigError(f"a worker with {self.cpus:g} CPUs and {self.gpus:g} GPUs cannot be; expected some CPU")

    def __call__(self, maker: LabelMaker, batches: Iterable[Batch]) -> Iterator[list[Made]]:
        """Results in the order of the batches; see `Engine`.

        Raises:
            ConfigError: Ray is not installed, no machine can hold a worker, or they die as soon as they start.
        """
        ray = _import_ray()
        begun = not ray.is_initialized()
        if begun:
            own = {} if self.address else {"include_dashboard": False}
            ray.init(address=self.address or "local", log_to_driver=False, **own)
        fleet = _Fleet(ray, self, maker)
        try:
            yield from fleet.run(iter(batches))
        finally:
            fleet.dismiss()
            if begun:
                ray.shutdown()


class _Worker:
    """The actor. Its methods run in several threads at once; the pipeline inside keeps them in line."""

    def start(
        self,
        build: Callable[[], Teacher],
        expected: Mapping[str, Any],
        manifest: Manifest,
        recipe: Recipe,
        threads: tuple[int, int],
    ) -> None:
        """Get ready; `threads` are those of torch (which decide the last bits of a CPU's labels) and of the pipeline.

        Raises:
            ConfigError: the teacher made here is not the one that the cache's header speaks of.
        """
        torch.set_num_threads(threads[0])
        teacher = build()
        for name, value in _identity(teacher).items():
            if value != expected[name]:
                raise ConfigError(
                    f"a worker's teacher has {name} {value!r}, expected {expected[name]!r} as on the machine of the "
                    "run. Give all machines the same weights and the same version of distill3d."
                )
        self._pipeline = Pipeline(LabelMaker(teacher, manifest, recipe), threads[1])

    def make(self, batch: Batch) -> list[Made]:
        """The samples of a batch."""
        return self._pipeline.submit(batch).result()


@dataclass(eq=False)
class _Task:
    number: int
    batch: Batch
    deaths: int = 0


@dataclass(eq=False)
class _Hired:
    """A worker as the driver sees it."""

    actor: Any
    tasks: dict[Any, _Task] = field(default_factory=dict)
    """What it was asked to make, by the reference to the answer."""


class _Fleet:
    """The workers of a run, and who has what."""

    def __init__(self, ray: Any, engine: RayEngine, maker: LabelMaker) -> None:
        self._ray, self._engine = ray, engine
        pipeline_threads = max(1, math.floor(engine.cpus))
        self._ahead = Pipeline.capacity_of(pipeline_threads)
        self._orders = (
            engine.build,
            _identity(maker.teacher),
            ray.put(maker.manifest),
            maker.recipe,
            (torch.get_num_threads(), pipeline_threads),
        )
        self._starting: dict[Any, Any] = {}  # reference to the end of the start -> actor
        self._working: list[_Hired] = []
        self._waiting: deque[_Task] = deque()
        self._false_starts = 0
        self._looked = -math.inf
        self._last_alive = time.monotonic()

    def run(self, batches: Iterator[Batch]) -> Iterator[list[Made]]:
        """Results in the order of the batches; bounded in what is under way or waits for its turn."""
        self._recruit()
        finished: dict[int, list[Made]] = {}
        begun = turn = 0
        batch = next(batches, None)
        while batch is not None or turn < begun:
            while batch is not None and begun - turn < 2 * self._ahead * max(1, len(self._working)):
                self._waiting.append(_Task(begun, batch))
                begun += 1
                batch = next(batches, None)
            self._hand_out()
            finished.update(self._collect())
            while turn in finished:
                yield finished.pop(turn)
                turn += 1
            self._recruit()

    def dismiss(self) -> None:
        """End every worker."""
        for actor in [*self._starting.values(), *(worker.actor for worker in self._working)]:
            self._end(actor)
        self._starting.clear()
        self._working.clear()

    def _recruit(self) -> None:
        """Ask for workers wherever there is room for one."""
        now = time.monotonic()
        if self._working:
            self._last_alive = now
        if now - self._last_alive > PATIENCE_SECONDS:
            raise ConfigError(
                f"there was no worker for {PATIENCE_SECONDS:.0f} s. What was made is committed: resume when machines "
                "are there."
            )
        if now - self._looked < LOOK_SECONDS:
            return
        first, self._looked = self._looked == -math.inf, now
        wanted = self._slots() if self._engine.workers is None else self._engine.workers
        if first and wanted < 1:
            raise ConfigError(
                f"no machine of the Ray cluster has room for a worker with {self._engine.gpus:g} GPUs and "
                f"{self._engine.cpus:g} CPUs; the cluster offers {self._ray.cluster_resources()}. Ask for less."
            )
        for _ in range(wanted - len(self._working) - len(self._starting)):
            actor = (
                self._ray.remote(_Worker)
                .options(
                    num_cpus=self._engine.cpus, num_gpus=self._engine.gpus, max_concurrency=self._ahead, max_restarts=0
                )
                .remote()
            )
            self._starting[actor.start.remote(*self._orders)] = actor

    def _slots(self) -> int:
        """Workers that the machines which are there can hold."""
        needs = {"CPU": self._engine.cpus, "GPU": self._engine.gpus}
        return sum(
            min(math.floor(node["Resources"].get(name, 0) / need) for name, need in needs.items() if need)
            for node in self._ray.nodes()
            if node["Alive"]
        )

    def _hand_out(self) -> None:
        while self._waiting and self._working:
            worker = min(self._working, key=lambda found: len(found.tasks))
            if len(worker.tasks) >= self._ahead:
                return
            task = self._waiting.popleft()
            worker.tasks[worker.actor.make.remote(task.batch)] = task

    def _collect(self) -> dict[int, list[Made]]:
        """Wait for a moment, and take in whatever has ended: starts, samples, workers."""
        pending = [*self._starting, *(ref for worker in self._working for ref in worker.tasks)]
        if not pending:
            time.sleep(LOOK_SECONDS)
            return {}
        self._ray.wait(pending, num_returns=1, timeout=LOOK_SECONDS)
        ready, _ = self._ray.wait(pending, num_returns=len(pending), timeout=0)
        ended = {ref for ref in ready if ref in self._starting}
        for ref in ended:
            self._begin(ref)
        finished: dict[int, list[Made]] = {}
        for worker in list(self._working):
            for ref in [ref for ref in ready if ref in worker.tasks]:
                try:
                    finished[worker.tasks[ref].number] = self._get(ref)
                except self._ray.exceptions.RayError as error:
                    finished.update(self._lose(worker, error))
                    break
                del worker.tasks[ref]
        return finished

    def _begin(self, ref: Any) -> None:
        """A worker has started, or died of it."""
        actor = self._starting.pop(ref)
        try:
            self._get(ref)
        except self._ray.exceptions.RayError as error:
            self._end(actor)
            self._false_starts += 1
            logger.warning("a worker died while it started: %s", _first_line(error))
            if self._false_starts >= MOST_DEATHS:
                raise ConfigError(f"{self._false_starts} workers died while they started: {error}") from error
        else:
            self._false_starts = 0
            self._working.append(_Hired(actor))
            logger.info("%d workers", len(self._working))

    def _lose(self, worker: _Hired, error: Exception) -> dict[int, list[Made]]:
        """Take back what a dead worker had; what has outlived too many of them is given up."""
        self._working.remove(worker)
        self._end(worker.actor)
        logger.warning("a worker is lost, its %d batches go to others: %s", len(worker.tasks), _first_line(error))
        given_up: dict[int, list[Made]] = {}
        for task in sorted(worker.tasks.values(), key=lambda found: -found.number):
            task.deaths += 1
            if task.deaths < MOST_DEATHS:
                self._waiting.appendleft(task)
                continue
            reason = f"{task.deaths} workers died while they had it"
            missing = [group for group in task.batch.groups if group.key in task.batch.missing]
            given_up[task.number] = [Made(group, None, reason) for group in missing]
        return given_up

    def _get(self, ref: Any) -> Any:
        """The answer of a worker; an error of ours that it met is raised as itself."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Distill3dError):
                raise error.cause from error
            raise RuntimeError(f"a worker failed: {error}") from error

    def _end(self, actor: Any) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(actor)


def _identity(teacher: Teacher) -> dict[str, Any]:
    return {"name": teacher.name, "weights_hash": teacher.weights_hash, "settings": teacher.settings()}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _import_ray() -> Any:
    # Nothing leaves the machine unasked, and a worker's torch threads are ours to set.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ConfigError(
            "The engine 'ray' needs the package ray: pip install 'distill3d[ray]'. Or use the engine 'local'."
        ) from None
