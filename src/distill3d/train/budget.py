"""How large a batch fits into a memory budget: found by trying a step."""

import logging
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distill3d import models
from distill3d.adapters.lora import add_lora
from distill3d.checkpoints.build import build_empty
from distill3d.checkpoints.official import fitting_variant
from distill3d.checkpoints.read import read_weights
from distill3d.data.fit import Size
from distill3d.devices import autocast_dtype, choose_device
from distill3d.errors import ConfigError
from distill3d.losses.refine import depth_distillation, pointmap_replay
from distill3d.train.bases import base_of, view_depth, world_points
from distill3d.train.refine import recompute_activations
from distill3d.train.refine_config import RefineConfig
from distill3d.train.students import predict

logger = logging.getLogger(__name__)

RESERVE = 0.1
"""Share of the budget left for what no count sees: the context of the driver, fragments, work space of kernels."""
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_budget(text: str) -> int:
    """Bytes of "24GB", "24G", "24000 MB" or, in powers of 1024, "24GiB".

    Raises:
        ConfigError: it is no amount of memory.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if not found or float(found[1]) == 0:
        raise ConfigError(f"A budget of {text!r} is no amount of memory; expected one like 24GB.")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].upper()])


def fit_budget(config: RefineConfig, budget: int, size: Size) -> RefineConfig:
    """The settings that stay within a budget: batch, accumulation and recomputing; a step keeps its number of photos.

    Recomputing costs a third more time, so it comes after smaller batches. A few steps on
    empty photos are tried: on an accelerator its own count of memory decides, on a CPU a count of tensors.

    Args:
        config: what is wanted.
        budget: bytes of memory of one device.
        size: height and width of the photos.

    Raises:
        ConfigError: even one photo, or one replayed sample, does not fit.
    """
    wanted, limit = config.batch * config.accumulation, budget * (1 - RESERVE)
    least = 0.0
    for again in dict.fromkeys((config.gradient_checkpointing, True)):
        step = _Step(config, size, again)
        one, two = step.peak(1), step.peak(2)
        replay = step.peak(config.mix.replay_batch, replay=True)
        each = max(two - one, 1)
        least = max(one, replay)
        batch = min(config.batch, 1 + int((limit - one) // each)) if limit >= one else 0
        if batch >= 1 and replay <= limit:
            logger.info(
                "budget %s: batch %d, %s; at most %s for photos, %s for replayed views",
                _amount(budget), batch, "recomputing" if again else "keeping activations",
                _amount(one + (batch - 1) * each), _amount(replay),
            )  # fmt: skip
            return replace(config, batch=batch, accumulation=-(-wanted // batch), gradient_checkpointing=again)
    raise ConfigError(
        f"A budget of {_amount(budget)} is too small: {config.base} at {size[1]}x{size[0]} needs about "
        f"{_amount(least / (1 - RESERVE))}. Give smaller photos (--long-side), fewer replayed views "
        "(--mix.replay-views), or more memory."
    )


def _amount(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


class _Step:
    """A step of refining on empty photos, with weights that nobody has set."""

    def __init__(self, config: RefineConfig, size: Size, again: bool) -> None:
        self._config, self._size = config, size
        self._base = base_of(config.base)
        spec = models.get(config.base)
        self._device = choose_device(config.device)
        self._dtype = autocast_dtype(config.precision, self._device)
        self._model: nn.Module = build_empty(spec.build, _variant(config)).to(self._device).eval()
        with torch.no_grad():
            for parameter in self._model.parameters():
                parameter.zero_()
        add_lora(self._model, config.lora.targets or spec.lora_targets or "", config.lora.rank)
        if again:
            recompute_activations(self._model)

    def peak(self, batch: int, replay: bool = False) -> int:
        """Bytes of weights, activations and gradients at the worst moment."""
        views = min(self._config.mix.replay_views, self._base.max_views or 10**6) if replay else 1
        images = torch.zeros(batch, views, 3, *self._size, device=self._device)
        with _PeakMemory(self._model, self._device) as memory:
            chunk = self._config.head_chunk
            prediction = predict(self._model, images, seed=0, dtype=self._dtype, head_chunk=chunk)
            depth, confidence = view_depth(prediction, self._base)
            valid = torch.ones(batch, views, *self._size, dtype=torch.bool, device=self._device)
            truth = torch.zeros(batch, views, *self._size, 3, device=self._device)
            seen = depth.shape[1]
            plain = replace(self._config.loss, gradient_weight=0.0, normal_weight=0.0)
            total = depth_distillation(depth, confidence, truth[:, :seen], valid[:, :seen], plain).total
            if replay:
                points = world_points(prediction, self._base)
                total = total + pointmap_replay(points, prediction.confidence_world, truth, valid, plain)
            torch.autograd.backward(total)
        for parameter in self._model.parameters():
            parameter.grad = None
        return memory.peak


class _PeakMemory:
    """Most memory that tensors take while it is open, those of a network included."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device
        self._counter = _StorageCounter(model) if device.type == "cpu" else None

    def __enter__(self) -> "_PeakMemory":
        if self._counter is None:
            torch.get_device_module(self._device).reset_peak_memory_stats(self._device)
        else:
            self._counter.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        if self._counter is not None:
            self._counter.__exit__(*error)  # type: ignore[no-untyped-call]

    @property
    def peak(self) -> int:
        """In bytes."""
        if self._counter is not None:
            return self._counter.peak
        return int(torch.get_device_module(self._device).max_memory_allocated(self._device))


class _StorageCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive; a CPU keeps no such count itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: dict[int, int] = {}
        self._alive = self.peak = 0
        for tensor in model.state_dict(keep_vars=True).values():
            self._note(tensor)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self._alive += storage.nbytes()
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._alive -= self._sizes.pop(key, 0)


def _variant(config: RefineConfig) -> Any:
    spec = models.get(config.base)
    if config.weights is None or config.variant is not None:
        return spec.variant(config.variant)
    from distill3d.checkpoints import find_weights, read_info
    from distill3d.errors import CheckpointError

    try:
        return read_info(config.weights).config
    except CheckpointError:
        file = find_weights(config.weights)
        return spec.variant(fitting_variant(spec, read_weights(file), source=str(file)))
