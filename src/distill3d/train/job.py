"""What the loop is told of a run: which network learns, from which batches, against which loss."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from distill3d.losses.terms import LossTerms
from distill3d.train.config import RunConfig


@runtime_checkable
class NumberedBatches(Protocol):
    """Batch number n of an endless row; a function of n alone, so workers and resuming change nothing."""

    def __len__(self) -> int:
        """Batches of an epoch."""

    def __getitem__(self, number: int) -> Any:
        """A record with `keys`, the names of its samples."""


@dataclass(frozen=True)
class Seen:
    """What was found on samples that are not trained on."""

    scores: dict[str, float]
    pictures: list[Path] = field(default_factory=list)


class Job(abc.ABC):
    """A kind of training: distilling a student, refining an encoder. The loop runs any of them."""

    config: RunConfig
    batches: NumberedBatches
    identity: Mapping[str, Any]
    """What must be the same for the samples to be the same, as JSON values; compared on resume."""
    weights: str
    """The file in the run folder that the finished weights go to."""
    title: str
    """What is trained on what, in a few words, for the log."""
    watched: bool
    """Whether there is anything to validate on."""
    free: tuple[str, ...] = ()
    """Starts of the names of settings that may change on resume, besides those of every run."""

    @abc.abstractmethod
    def build(self) -> nn.Module:
        """The network on the CPU, as it is before anything is loaded from a checkpoint."""

    def start(self, model: nn.Module) -> None:  # noqa: B027 (most jobs have nothing to do)
        """What a new run does to its network, and a resumed one does not."""

    def train_mode(self, model: nn.Module) -> None:
        """Put the network into the mode it learns in."""
        model.train()

    @abc.abstractmethod
    def loss(
        self, model: nn.Module, batch: Any, device: torch.device, dtype: torch.dtype | None, step: int
    ) -> LossTerms:
        """Of one batch, for optimiser step `step`. A term that this batch has nothing to say about is NaN."""

    @abc.abstractmethod
    def watch(
        self, model: nn.Module, device: torch.device, dtype: torch.dtype | None, pictures: Path, step: int
    ) -> Seen:
        """Scores after `step` optimiser steps, and pictures drawn into a folder."""

    def state(self, model: nn.Module) -> Mapping[str, Tensor]:
        """What a checkpoint keeps of the network."""
        return model.state_dict()

    def restore(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        model.load_state_dict(dict(state))

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """What `config.json` says besides settings and versions, as JSON values."""

    @abc.abstractmethod
    def save(self, out: Path, model: nn.Module, average: nn.Module | None, scores: Mapping[str, float]) -> None:
        """Write the finished weights, `weights`, into the run folder.

        Raises:
            OutputError: they cannot be written.
        """

    def advice(self) -> str:
        """What to try where the loss is not finite."""
        return "look at the cache with `distill3d cache check`"
