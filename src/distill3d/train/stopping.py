"""Ctrl-C and SIGTERM end a run after the step in hand, so that a checkpoint can be written first."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

logger = logging.getLogger(__name__)


class StopRequest:
    """Set once somebody asks the run to stop."""

    def __init__(self) -> None:
        self.asked = False

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self.asked = True
        logger.warning("stopping after this step (%s); once more stops at once", signal.Signals(number).name)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch the two signals inside the block; outside the main thread, where Python forbids that, catch nothing."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outlive_stop_requests(worker: int) -> None:
    """Let a reading process go on while its parent finishes the step: both signals often reach a whole group.

    Ctrl-C is ignored, since the parent ends its readers; SIGTERM ends this process after half a minute of grace.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(30))
