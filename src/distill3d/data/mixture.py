"""Mixtures: endless draws from several sources by weight, the same on any number of processes, resumable at any place.

Draw number n of a mixture is a function of (seed, n) alone: process r of w takes the numbers n with n mod w == r, and
whoever has seen `consumed` of them goes on with number `consumed`. Nothing else needs to be stored.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from distill3d.errors import ConfigError

_ROUNDS = 4
_PERIOD = 10_000


@dataclass(frozen=True, kw_only=True)
class Part:
    """One source of a mixture."""

    name: str
    size: int
    """How many different items it has."""
    weight: float
    """Its share of the draws, relative to the others; 0 leaves it out."""


class MixedDraw(NamedTuple):
    """One draw."""

    number: int
    """In the whole mixture, from 0."""
    part: int
    """Which source."""
    epoch: int
    """How often the source has been gone through before."""
    item: int
    """Of the source; every epoch of it visits each item once, in another order."""


@dataclass(frozen=True)
class Position:
    """Where a mixture stands: all that a checkpoint keeps."""

    seed: int
    consumed: int
    """Draws taken by all processes together."""
    parts: tuple[Part, ...]

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"seed": self.seed, "consumed": self.consumed, "parts": [asdict(part) for part in self.parts]}


class Mixture:
    """Sources drawn from by weight.

    The sources take turns as evenly as their weights allow, in a schedule of 10,000 draws that repeats: shares are
    exact to a hundredth of a per cent. The seed decides which items come, not how many of which source.
    """

    def __init__(self, parts: Sequence[Part], *, seed: int) -> None:
        """Mix sources.

        Raises:
            ConfigError: a weight is negative or no number, all are 0, or a source that has a weight is empty.
        """
        self.parts, self.seed = tuple(parts), seed
        weights = [part.weight for part in self.parts]
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
            raise ConfigError(f"A mixture has the weights {weights}, expected numbers of at least 0 with one above it.")
        if empty := [part.name for part in self.parts if part.weight > 0 and part.size < 1]:
            raise ConfigError(f"The sources {empty} of a mixture are empty. Leave them out, or give them weight 0.")
        self._schedule = _make_schedule(weights)
        """Which source each draw of a period takes."""
        turns = np.stack([self._schedule == part for part in range(len(self.parts))])
        self._in_period = turns.sum(axis=1)
        self._earlier = np.empty(_PERIOD, dtype=np.int64)
        """How many draws of the same source stand before each one in a period."""
        for held in turns:
            self._earlier[held] = np.arange(held.sum())

    def __getitem__(self, number: int) -> MixedDraw:
        """Draw number `number`, in constant time."""
        period, slot = divmod(number, _PERIOD)
        part = int(self._schedule[slot])
        taken = period * int(self._in_period[part]) + int(self._earlier[slot])
        epoch, place = divmod(taken, self.parts[part].size)
        return MixedDraw(number, part, epoch, shuffled(place, self.parts[part].size, (self.seed, part, epoch)))

    def draws(self, *, rank: int = 0, world: int = 1, consumed: int = 0) -> Iterator[MixedDraw]:
        """The draws of one process, for ever, from where all processes together have taken `consumed`.

        Raises:
            ConfigError: `rank` is not one of `world` processes.
        """
        if not 0 <= rank < world:
            raise ConfigError(f"Process {rank} of {world} was asked for, expected 0 to {world - 1}.")
        number = consumed + (rank - consumed) % world
        while True:
            yield self[number]
            number += world

    def position(self, consumed: int) -> Position:
        """What a checkpoint keeps."""
        return Position(self.seed, consumed, self.parts)

    @classmethod
    def resume(cls, stored: dict[str, Any], parts: Sequence[Part]) -> tuple["Mixture", int]:
        """The mixture of a checkpoint, and how many draws it had taken.

        Raises:
            ConfigError: the sources are not those that the checkpoint was made with.
        """
        before = [Part(**part) for part in stored["parts"]]
        if before != list(parts):
            raise ConfigError(f"The mixture was {before} and is now {list(parts)}; resuming it needs the same sources.")
        return cls(parts, seed=stored["seed"]), int(stored["consumed"])


def _make_schedule(weights: Sequence[float]) -> np.ndarray:
    """Which source each draw of a period takes: the turns of each are spread evenly over the period."""
    wanted = np.array(weights) / sum(weights) * _PERIOD
    # A source too rare for the period still has its turn; what rounding leaves goes to the largest remainders.
    turns = np.maximum(np.floor(wanted), wanted > 0).astype(np.int64)
    order = np.argsort(turns - wanted, kind="stable")
    left = _PERIOD - turns.sum()
    turns[order[: max(left, 0)]] += 1
    turns[turns.argmax()] += min(left, 0)
    part = np.repeat(np.arange(len(turns)), turns)
    moment = np.concatenate([(np.arange(count) + 0.5) / count for count in turns if count])
    return np.asarray(part[np.argsort(moment, kind="stable")])


def shuffled(place: int, size: int, seed: Sequence[int]) -> int:
    """Item at `place` of a random order of `size` items, without making the order: constant time and memory.

    A Feistel network of four rounds over the next power of four permutes; what falls outside is permuted again until it
    falls inside (Black and Rogaway 2002).
    """
    half = max(1, math.ceil(math.log2(max(size, 2)) / 2))
    mask = (1 << half) - 1
    keys = np.random.SeedSequence(list(seed)).generate_state(_ROUNDS, np.uint64).tolist()
    value = place
    while True:
        left, right = value >> half, value & mask
        for key in keys:
            left, right = right, left ^ (_scramble(right ^ key) & mask)
        value = (left << half) | right
        if value < size:
            return value


def _scramble(value: int) -> int:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
