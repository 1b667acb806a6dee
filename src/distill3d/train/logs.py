"""What a run leaves to read: metrics.jsonl, TensorBoard curves, and where its time went."""

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from distill3d.files import PathLike, atomic_write_bytes, output_errors

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class RunLog:
    """Appends one JSON line a record to `metrics.jsonl`, and the same numbers to TensorBoard.

    Every record has `step` (optimiser steps done) and `kind` ("train" or "validation").
    """

    def __init__(self, folder: Path, *, tensorboard: bool, start: int = 0, silent: bool = False) -> None:
        """`start`: records of later steps are removed, so that no step comes twice; `silent`: write nothing."""
        self._path = folder / METRICS
        self._file: IO[str] | None = None
        self._board: Any = None
        if silent:
            return
        cut_metrics(self._path, start)
        with output_errors(self._path):
            self._file = self._path.open("a", encoding="utf-8")
        self._board = _open_board(folder / "tensorboard", start) if tensorboard else None

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Add a record; it is on the disk when this returns, up to the system's own buffers."""
        if self._file is None:
            return
        # JSON has no NaN: a number that is none is written as null.
        known = {name: value if _is_finite(value) else None for name, value in values.items()}
        with output_errors(self._path):
            self._file.write(json.dumps({"step": step, "kind": kind, **known}) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in known.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, name: str, step: int, path: Path) -> None:
        """Show a picture file in TensorBoard too."""
        if self._board is not None:
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                self._board.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with output_errors(self._path):
                self._file.close()
        if self._board is not None:
            self._board.close()


def cut_metrics(path: Path, step: int) -> None:
    """Keep the records up to `step`; later ones and a torn last line go."""
    if not path.exists():
        return
    kept = [line for line in path.read_bytes().split(b"\n")[:-1] if _step_of(line) <= step]
    atomic_write_bytes(path, b"".join(line + b"\n" for line in kept))


def read_metrics(folder: PathLike) -> list[dict[str, Any]]:
    """The records of a run folder, oldest first; a torn last line is left out."""
    path = Path(folder) / METRICS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


class Stopwatch:
    """Sums up where the time of a loop goes. On an accelerator the work of one part may be waited for in the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, part: str | None) -> float:
        """Add the time since the last call to `part` (None: to nothing), and return it."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        if part is not None:
            self.seconds[part] = self.seconds.get(part, 0.0) + passed
        return passed

    def shares(self) -> dict[str, float]:
        """Each part's share of the whole."""
        total = sum(self.seconds.values()) or 1.0
        return {part: seconds / total for part, seconds in self.seconds.items()}


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _open_board(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("TensorBoard is not installed; the curves are in %s alone", METRICS)
        return None
    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)
