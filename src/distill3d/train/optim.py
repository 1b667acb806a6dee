"""Parameter groups, one object around one or two optimisers, the schedule, and averaged weights."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from distill3d.train.config import OptimConfig
from distill3d.train.muon import Muon

ENCODER = "encoder."
"""Parameters of a pretrained encoder begin with this."""
_BORDERS = ("head", "patch_embed", "pos_embed", "token")
"""Words in the names of matrices at the borders of a network, which Muon must not touch."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are treated alike."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr: float
    weight_decay: float
    by_muon: bool


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[ParameterGroup]:
    """Sort every trainable parameter into the group of its treatment.

    Matrices and kernels (a `weight` of two axes or more) decay; norms, biases, embeddings, tokens and free maps do not.
    What lies under `encoder.` has its own rate. With Muon, the linear layers inside the network are its part.
    """
    tables = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    hidden = _hidden_matrices(model) if config.optimizer == "muon" else set()
    sorted_in: dict[tuple[str, float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        by_muon = name in hidden
        decays = parameter.ndim >= 2 and name.split(".")[-1] == "weight" and name not in tables
        part = "encoder" if name.startswith(ENCODER) else "rest"
        lr = config.matrix_lr if by_muon and config.matrix_lr is not None else config.lr
        if part == "encoder" and config.encoder_lr is not None:
            lr = config.encoder_lr
        kind = "matrices" if by_muon else "decayed" if decays else "kept"
        key = (f"{part}/{kind}", lr, config.weight_decay if decays else 0.0, by_muon)
        sorted_in.setdefault(key, []).append(parameter)
    return [
        ParameterGroup(name, tuple(parameters), lr, decay, by_muon)
        for (name, lr, decay, by_muon), parameters in sorted_in.items()
    ]


def _hidden_matrices(model: nn.Module) -> set[str]:
    """Names of the weights of linear layers that neither read the input nor write the output."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(word in name for word in _BORDERS)
    }


def schedule(step: int, *, steps: int, warmup_steps: int, min_lr_ratio: float) -> float:
    """Share of the peak rate at an optimiser step (counted from 0): linear warm-up, then a cosine down to the end.

    It counts steps of the optimiser, so it is the same for any number of processes and any accumulation.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


class Optimizer:
    """AdamW, or Muon and AdamW together, under one schedule."""

    def __init__(self, model: nn.Module, config: OptimConfig, steps: int) -> None:
        """`steps`: length of the whole run, for the schedule."""
        self._config, self._steps = config, steps
        groups = parameter_groups(model, config)
        self._parameters = [parameter for group in groups for parameter in group.parameters]
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if adam := [_as_torch_group(group) for group in groups if not group.by_muon]:
            self._parts["adamw"] = torch.optim.AdamW(adam, lr=config.lr, betas=config.betas)
        if matrices := [_as_torch_group(group) for group in groups if group.by_muon]:
            self._parts["muon"] = Muon(matrices, lr=config.lr, momentum=config.momentum)

    def step(self, step: int) -> float:
        """Move the weights with the rate of optimiser step `step` (from 0); returns the share of the peak rate."""
        config = self._config
        share = schedule(step, steps=self._steps, warmup_steps=config.warmup_steps, min_lr_ratio=config.min_lr_ratio)
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = group["peak_lr"] * share
            part.step()
        return share

    def clip(self) -> Tensor:
        """Scale the gradient down to the largest allowed norm; returns its norm before, infinite or NaN if it is."""
        largest = self._config.clip_norm
        return nn.utils.clip_grad_norm_(self._parameters, math.inf if largest is None else largest)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The state of each part under its name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of an optimiser of the same settings."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _as_torch_group(group: ParameterGroup) -> dict[str, Any]:
    return {
        "params": list(group.parameters),
        "lr": group.lr,
        "peak_lr": group.lr,
        "weight_decay": group.weight_decay,
        "name": group.name,
    }


class AveragedWeights:
    """An exponential moving average of a model's weights, with a model to hold it.

    Early on the average is shorter: after step t its decay is at most (1 + t) / (10 + t), so the start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step `step` (from 0)."""
        decay = min(self._decay, (2 + step) / (11 + step))
        torch._foreach_lerp_(_floating(self.model), _floating(model), 1 - decay)


def _floating(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers that can be averaged, each once even where two layers share it."""
    return [value for value in chain(model.parameters(), model.buffers()) if value.is_floating_point()]
