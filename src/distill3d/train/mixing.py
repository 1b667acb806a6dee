"""Several kinds of batches in one endless row: so many of each in every epoch, in an order that the seed decides."""

import functools
import math
from collections.abc import Mapping, Sequence
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
        """Mix the sources.

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

    def unmarked(self) -> NumberedBatches:
        """The batches alone, without what kind they are of."""
        return _Unmarked(self)

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


def by_weight(kinds: Mapping[str, NumberedBatches], weights: Sequence[float] | None, *, seed: int) -> MixedBatches:
    """A mix whose epoch has as many batches as those of all kinds together, shared out by weight.

    Without weights every kind gives its own number. A weight of 0 leaves a kind out.

    Raises:
        ConfigError: not one weight for each kind, a weight that is negative or no number, or all of them 0.
    """
    lengths = [len(batches) for batches in kinds.values()]
    shares: Sequence[float] = lengths if weights is None else weights
    if len(shares) != len(lengths):
        raise ConfigError(f"{len(shares)} weights for {len(lengths)} sources ({', '.join(kinds)}). Give one for each.")
    if not all(math.isfinite(share) and share >= 0 for share in shares) or not sum(shares) > 0:
        raise ConfigError(f"The weights are {list(shares)}, expected numbers of at least 0, one of them above it.")
    total = sum(lengths)
    return MixedBatches(
        [
            Source(name=name, batches=batches, per_epoch=max(1, round(total * share / sum(shares))))
            for (name, batches), share in zip(kinds.items(), shares, strict=True)
            if share > 0
        ],
        seed=seed,
    )


class _Unmarked(Dataset[Any]):
    def __init__(self, mix: MixedBatches) -> None:
        self._mix = mix

    def __len__(self) -> int:
        return len(self._mix)

    def __getitem__(self, number: int) -> Any:
        return self._mix[number].batch
