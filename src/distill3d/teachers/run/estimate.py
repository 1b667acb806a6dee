"""What a teacher pass will take, judged by its first samples."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill3d.files import megabytes
from distill3d.progress import clock
from distill3d.teachers.run.making import Made

MEASURED_BATCHES = 4
MEASURED_SECONDS = 3.0
"""A pass is judged once so many batches are through and so much time has gone by."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The size of a pass, extrapolated from samples that were really made."""

    num_groups: int
    """That are still to be made."""
    num_views: int
    """Of those."""
    measured_views: int
    views_per_second: float
    bytes_per_view: float
    """Labels and image."""

    @property
    def seconds(self) -> float:
        """For all of the views."""
        return self.num_views / self.views_per_second

    @property
    def num_bytes(self) -> int:
        """For all of the views."""
        return round(self.num_views * self.bytes_per_view)

    def summary(self) -> dict[str, Any]:
        """The estimate in numbers, ready for JSON."""
        return {
            "groups": self.num_groups,
            "views": self.num_views,
            "hours": round(self.seconds / 3600, 4),
            "gigabytes": round(self.num_bytes / 1e9, 4),
            "views_per_second": round(self.views_per_second, 3),
            "bytes_per_view": round(self.bytes_per_view),
            "measured_views": self.measured_views,
        }

    def words(self) -> str:
        """The estimate as people say it."""
        return (
            f"{self.num_views} views in {self.num_groups} groups take {clock(self.seconds)} "
            f"({self.seconds / 3600:.3g} h) at {self.views_per_second:.3g} views/s and {self.num_bytes / 1e9:.3g} GB "
            f"at {megabytes(round(self.bytes_per_view))}/view, judged by {self.measured_views} views"
        )


class Meter:
    """Watches the first results of a pass come in.

    The first batch pays for starting up (the pipeline is empty, kernels are chosen), so the pace is that of the others;
    where there are no others, it has to do.
    """

    def __init__(self, num_groups: int, num_views: int) -> None:
        self._num_groups, self._num_views = num_groups, num_views
        self._begun = self._first = time.monotonic()
        self._batches = self._views = self._first_views = self._bytes = 0
        self._failed = 0

    def watch(self, made: Sequence[Made]) -> None:
        """Take note of one more batch."""
        samples = [item.sample for item in made if item.sample is not None]
        self._failed += len(made) - len(samples)
        self._views += sum(sample.num_views for sample in samples)
        self._bytes += sum(sample.num_bytes for sample in samples)
        self._batches += 1
        self._last = time.monotonic()
        if not self._first_views:
            self._first, self._first_views = self._last, self._views

    @property
    def is_enough(self) -> bool:
        """Whether enough was seen to judge by."""
        return self._batches >= MEASURED_BATCHES and time.monotonic() - self._begun >= MEASURED_SECONDS

    def estimate(self) -> Estimate | None:
        """What all groups will take; `None` while not one could be made."""
        if not self._views:
            return None
        later = self._views - self._first_views
        views, seconds = (later, self._last - self._first) if later else (self._views, self._last - self._begun)
        return Estimate(
            num_groups=self._num_groups,
            num_views=self._num_views,
            measured_views=self._views,
            views_per_second=views / max(seconds, 1e-6),
            bytes_per_view=self._bytes / self._views,
        )
