"""Several kinds of batches in one endless row: so many of each in every epoch, in an order that the seed decides.

Batch number n is a function of (seed, n) alone: any number of processes share the row, and whoever has seen
`consumed` of it goes on with number `consumed`.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from distill3d.errors import ConfigError
from distill3d.train.job import NumberedBatches
from distill3d.train.order import seed_of


@dataclass(frozen=True, kw_only=True)
class Source:
    """One kind of batches."""

    name: str
    batches: NumberedBatches
    per_epoch: int
    """Batches of this kind in an epoch of the mix, whatever an epoch of its own has."""


SHORTEST_EPOCH = 1000
"""Batches of an epoch of a weighted mix, at least: its shares are exact to half a batch of that."""


def turns(sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Batches of each source in an epoch of a mix, by weight; the epoch is as long as all sources together.

    Args:
        sizes: batches that one pass over each source takes.
        weights: shares of the sources, relative to each other; 0 leaves one out.

    Raises:
        ConfigError: there is not one weight for each source, or one is negative or no number, or all are 0.
    """
    if len(weights) != len(sizes):
        raise ConfigError(f"The mix takes one weight for each cache; caches: {len(sizes)}, weights: {len(weights)}.")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise ConfigError(f"The mix is {list(weights)}, expected numbers of at least 0 with one above it.")
    wanted = [weight / sum(weights) * max(sum(sizes), SHORTEST_EPOCH) for weight in weights]
    # A source too rare for the epoch still has its turn.
    return [max(round(share), 1) if share > 0 else 0 for share in wanted]


@dataclass(frozen=True)
class MixedBatch:
    """A batch, and what kind it is of."""

    source: str
    batch: Any

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of its samples."""
        found: tuple[str, ...] = self.batch.keys
        return found


class MixedBatches(Dataset[MixedBatch]):
    """Batch number n of the mix. Each source goes on where it was: an epoch of the mix need not be one of its own."""

    def __init__(self, sources: Sequence[Source], *, seed: int) -> None:
        """Mix sources; `turns` gives `per_epoch` by weight.

        Raises:
            ConfigError: an epoch has no batches at all.
        """
        self.sources = tuple(sources)
        self._seed = seed
        self._length = sum(source.per_epoch for source in self.sources)
        if self._length < 1:
            raise ConfigError("An epoch of this mix has no batches. Give photos, views to replay, or both.")
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> MixedBatch:
        epoch, within = divmod(number, self._length)
        index, count = self._epoch(epoch)[within]
        source = self.sources[index]
        return MixedBatch(source.name, source.batches[epoch * source.per_epoch + count])

    def _make_epoch(self, epoch: int) -> list[tuple[int, int]]:
        """For every batch of an epoch: which source, and which of its batches of this epoch."""
        kinds = [index for index, source in enumerate(self.sources) for _ in range(source.per_epoch)]
        generator = torch.Generator().manual_seed(seed_of(self._seed, "mix", epoch))
        counts = [0] * len(self.sources)
        order = []
        for place in torch.randperm(len(kinds), generator=generator).tolist():
            order.append((kinds[place], counts[kinds[place]]))
            counts[kinds[place]] += 1
        return order
