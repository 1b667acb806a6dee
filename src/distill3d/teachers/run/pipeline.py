"""The pass on one machine: decoding, the teacher, and encoding each in threads of their own, so that none waits.

The teacher has one thread, which does nothing else: it never inflates a photo or compresses labels. Batches stay in
order throughout, and only so many are under way, so that memory is bounded. The bytes are those of `one_by_one`.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from distill3d.errors import ConfigError
from distill3d.teachers.run.making import Batch, Labelled, LabelMaker, Loaded, Made

MOST_THREADS = 8
"""More do not help one accelerator; they only hold memory."""


def default_threads() -> int:
    """Threads for decoding, and as many for encoding: one for each core that this process may use."""
    return max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1))


class Pipeline:
    """Three steps in three pools of threads. Use it in a `with` statement: leaving it drops what has not begun.

    Every step waits for the one before it, never the other way round, and pools take work in the order it came: nothing
    can lock up. An error of any step is raised by the future of its batch.

    Raises:
        ConfigError: fewer threads than one.
    """

    def __init__(self, maker: LabelMaker, threads: int | None = None) -> None:
        threads = default_threads() if threads is None else threads
        if threads < 1:
            raise ConfigError(f"threads is {threads}; expected at least 1")
        self.capacity = self.capacity_of(threads)
        self._maker = maker
        decoders = 1 if maker.has_videos else threads
        self._load = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._ask = ThreadPoolExecutor(1, thread_name_prefix="teacher")
        self._pack = ThreadPoolExecutor(threads, thread_name_prefix="encode")

    @staticmethod
    def capacity_of(threads: int) -> int:
        """Batches under way that keep every thread busy."""
        return 2 * threads + 1

    def submit(self, batch: Batch) -> Future[list[Made]]:
        """Send a batch on its way."""
        loaded: Future[Loaded] = self._load.submit(self._maker.load, batch)
        labelled: Future[Labelled] = self._ask.submit(lambda: self._maker.ask(loaded.result()))
        return self._pack.submit(lambda: self._maker.pack(labelled.result()))

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in (self._load, self._ask, self._pack):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (self._load, self._ask, self._pack):
            pool.shutdown(wait=True)


def pipelined(maker: LabelMaker, batches: Iterable[Batch], *, threads: int | None = None) -> Iterator[list[Made]]:
    """The engine of one machine; `threads` for decoding and as many for encoding, one for each core by default."""
    with Pipeline(maker, threads) as pipeline:
        under_way: deque[Future[list[Made]]] = deque()
        for batch in batches:
            under_way.append(pipeline.submit(batch))
            if len(under_way) >= pipeline.capacity:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
