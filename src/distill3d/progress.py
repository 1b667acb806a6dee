"""Progress for people: a bar on a terminal, a line in the log every ten seconds elsewhere, nothing for quick work."""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

logger = logging.getLogger(__name__)

QUIET_SECONDS = 2.0
"""Work that is done sooner shows nothing."""
LOG_SECONDS = 10.0
"""Pause between two lines in the log where there is no terminal."""
_REFRESH_SECONDS = 0.2

Item = TypeVar("Item")


class ProgressBar:
    """Counts work; shows rate, share and time left once the work takes longer than two seconds.

    On a terminal (or with FORCE_PROGRESS set) it draws a bar on stderr; otherwise it logs a line about every ten
    seconds. A bar inside another bar keeps quiet, so that library functions may use one without asking.

        with ProgressBar("training", total=1000) as bar:
            for step in range(1000):
                bar.advance(note=f"loss {loss:.3f}")
    """

    _open_bars = 0  # bars of this process that are open: only the outermost speaks

    def __init__(self, description: str, total: int | None = None, *, unit: str = "") -> None:
        """`unit` names what is counted ("images"), for the rate."""
        self.description = description
        self.total = total
        self.unit = unit
        self.done = 0
        self._note = ""
        self._silent = True
        self._start = self._shown = 0.0
        self._drawing: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> "ProgressBar":
        self._silent = ProgressBar._open_bars > 0
        ProgressBar._open_bars += 1
        self._start = self._shown = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ProgressBar._open_bars -= 1
        if self._drawing is not None:
            self._draw(time.monotonic())
            self._drawing[0].stop()
            self._drawing = None

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Say that `count` more are done; `note` is shown behind the numbers until the next one."""
        self.done += count
        if note is not None:
            self._note = note
        now = time.monotonic()
        if self._silent or now - self._start < QUIET_SECONDS:
            return
        on_terminal = _wants_bar()
        if now - self._shown < (_REFRESH_SECONDS if on_terminal else LOG_SECONDS):
            return
        self._shown = now
        if on_terminal:
            self._draw(now)
        else:
            logger.info("%s", self.summary(now - self._start))

    def summary(self, seconds: float) -> str:
        """One line: how much is done after `seconds`, how fast, and the time left."""
        counted = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        return " · ".join(part for part in (f"{self.description} {counted}", *self._pace(seconds), self._note) if part)

    def _pace(self, seconds: float) -> list[str]:
        if self.done == 0 or seconds <= 0:
            return []
        rate = self.done / seconds
        unit = f" {self.unit}" if self.unit else ""
        words = [f"{rate:.3g}{unit}/s" if rate >= 1 else f"{1 / rate:.3g} s each"]
        if self.total is not None and self.done < self.total:
            words.append(f"{clock((self.total - self.done) / rate)} left")
        return words

    def _draw(self, now: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        if self._drawing is None:
            # No refresh thread: a thread would not survive the forks of data loaders.
            progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[words]}", markup=False),
                console=Console(stderr=True, force_terminal=True),
                auto_refresh=False,
            )
            progress.start()
            self._drawing = (progress, progress.add_task(self.description, total=self.total, words=""))
        progress, task = self._drawing
        counted = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        words = " · ".join(part for part in (counted, *self._pace(now - self._start), self._note) if part)
        progress.update(task, completed=self.done, words=words)
        progress.refresh()


def track(iterable: Iterable[Item], description: str, total: int | None = None, *, unit: str = "") -> Iterator[Item]:
    """Yield the items of `iterable` and show how far it is; `total` is taken from its length where it has one."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with ProgressBar(description, total, unit=unit) as bar:
        for item in iterable:
            yield item
            bar.advance()


def clock(seconds: float) -> str:
    """A duration as people say it: "12 s", "3:05", "2:10:00"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _wants_bar() -> bool:
    return bool(os.environ.get("FORCE_PROGRESS")) or sys.stderr.isatty()
