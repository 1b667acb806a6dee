"""Seeded weights under official names, loaded into our networks."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill3d import checkpoints
from distill3d.models import ModelSpec
from tests.parity.seeded_weights import seeded_tensor


def seeded_official_weights(manifest: Path, aliases: tuple[tuple[str, str], ...] = ()) -> dict[str, torch.Tensor]:
    """Weights for every entry of a manifest; of two names for one tensor, the later one decides the values."""
    weights: dict[str, torch.Tensor] = {}
    for entry in json.loads(manifest.read_text())["entries"]:
        name, shape = (entry["name"], entry["shape"]) if isinstance(entry, dict) else entry[:2]
        weights[name] = seeded_tensor(name, tuple(shape))
        if isinstance(entry, dict) and "same_storage_as" in entry:
            weights[entry["same_storage_as"]] = weights[name]
    return weights


def load_seeded(model: nn.Module, spec: ModelSpec, manifest: Path) -> nn.Module:
    """A model filled as the recordings were."""
    checkpoints.load_official(model, spec, seeded_official_weights(manifest), source=str(manifest.name))
    return model.eval()


def fill_seeded(model: nn.Module, spec: ModelSpec, seed: int = 0) -> nn.Module:
    """A model of any size filled as the recordings were: by official names, aliases aside."""
    official = checkpoints.to_official(model, spec, aliases=False)
    weights = {name: seeded_tensor(name, tuple(tensor.shape), seed) for name, tensor in official.items()}
    checkpoints.load_official(model, spec, weights, source="seeded weights")
    return model.eval()


def relative(found: torch.Tensor, recorded: torch.Tensor) -> float:
    """Largest deviation over the largest magnitude."""
    assert found.shape == recorded.shape
    return ((found - recorded).abs().max() / recorded.abs().max()).item()


def relative_points(found: torch.Tensor, recorded: torch.Tensor) -> float:
    """Largest deviation of a point over its own distance (points span orders of magnitude)."""
    assert found.shape == recorded.shape
    return ((found - recorded).norm(dim=-1) / recorded.norm(dim=-1)).max().item()


def relative_values(found: torch.Tensor, recorded: torch.Tensor) -> float:
    """Largest deviation of a value over its own magnitude."""
    assert found.shape == recorded.shape
    return ((found - recorded) / recorded).abs().max().item()


def shapes_of_manifest(manifest: Path) -> dict[str, list[int]]:
    """The shape of every entry of an official state dict, aliases included."""
    entries = json.loads(manifest.read_text())["entries"]
    return (
        {entry["name"]: entry["shape"] for entry in entries}
        if isinstance(entries[0], dict)
        else {name: shape for name, shape, *_ in entries}
    )


@contextmanager
def watch(parts: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Any]]]:
    """While it is open, the outputs of some parts of a network, call by call."""
    seen: dict[str, list[Any]] = {name: [] for name in parts}
    hooks = [
        part.register_forward_hook(lambda _part, _inputs, output, name=name: seen[name].append(output))
        for name, part in parts.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
