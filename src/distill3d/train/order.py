"""Which sample comes when: a function of (seed, epoch) alone, cut into batches that any number of processes share."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch


def seed_of(*parts: int | str) -> int:
    """A seed for a generator from whatever identifies a draw; the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch wants a signed 64-bit number


@dataclass(frozen=True)
class Draw:
    """One use of a sample."""

    index: int
    """Of the sample in the cache."""
    repeat: int
    """0, or how often the epoch has used this sample before (it fills up the last batch of its size)."""


@dataclass(frozen=True)
class DrawnBatch:
    """What one batch is made of."""

    epoch: int
    number: int
    """Of the batch in its epoch."""
    draws: tuple[Draw, ...]


class BatchOrder:
    """An endless row of batches, each of images of one size; every epoch uses every sample.

    Batch m belongs to process m mod (number of processes), so 2 processes with 1 batch a step see what 1 process with 2
    sees.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], *, batch: int, seed: int) -> None:
        """`sizes`: height and width of every sample."""
        self._batch, self._seed = batch, seed
        self._by_size: dict[tuple[int, int], list[int]] = {}
        for index, size in enumerate(sizes):
            self._by_size.setdefault(size, []).append(index)
        self.per_epoch = sum(-(-len(indices) // batch) for indices in self._by_size.values())
        """Batches of an epoch."""
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)

    def __getitem__(self, number: int) -> DrawnBatch:
        epoch, within = divmod(number, self.per_epoch)
        return DrawnBatch(epoch, within, self._epoch(epoch)[within])

    def _make_epoch(self, epoch: int) -> list[tuple[Draw, ...]]:
        generator = torch.Generator().manual_seed(seed_of(self._seed, "order", epoch))
        batches: list[tuple[Draw, ...]] = []
        for size in sorted(self._by_size):
            indices = self._by_size[size]
            shuffled = [indices[place] for place in torch.randperm(len(indices), generator=generator).tolist()]
            num_slots = -(-len(shuffled) // self._batch) * self._batch
            draws = [Draw(shuffled[slot % len(shuffled)], slot // len(shuffled)) for slot in range(num_slots)]
            batches += [tuple(draws[start : start + self._batch]) for start in range(0, num_slots, self._batch)]
        return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def numbers_of_rank(*, rank: int, world: int, accumulation: int, start: int, steps: int) -> list[int]:
    """The batches of process `rank` from optimiser step `start` to the end."""
    return list(range(start * accumulation * world + rank, steps * accumulation * world, world))
