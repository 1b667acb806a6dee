"""The processes of a run: one alone, or several started by torchrun."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill3d.devices import choose_device


@dataclass(frozen=True)
class Ranks:
    """This process among its fellows."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, the same number in each of them."""
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return values

    def wrap(self, model: nn.Module) -> nn.Module:
        """A model whose gradients are averaged over all processes."""
        if self.world == 1:
            return model
        # A loss with a weight of 0 leaves a head without gradient; the processes must not wait for it.
        return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)

    def accumulate(self, model: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
        """Average gradients only after the last batch of a step."""
        if isinstance(model, DistributedDataParallel) and not last:
            return model.no_sync()
        return contextlib.nullcontext()


@contextlib.contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """Find the device, and meet the other processes if torchrun started some.

    Raises:
        ConfigError: there is no such device.
    """
    world, rank, local = (int(os.environ.get(name, default)) for name, default in _TORCHRUN.items())
    chosen = choose_device(device, local)
    if chosen.type != "cpu":
        torch.accelerator.set_device_index(chosen.index or 0)
    if world == 1:
        yield Ranks(chosen)
        return
    dist.init_process_group(dist.get_default_backend_for_device(chosen))
    try:
        yield Ranks(chosen, rank, world)
    finally:
        dist.destroy_process_group()


_TORCHRUN = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
