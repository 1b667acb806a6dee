"""Seeded weights under official names, loaded into our networks."""

import json
from pathlib import Path

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
