"""Our own adapter files: safetensors with the matrices alone, and a header that says on what and how they were made."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from distill3d.adapters.config import Rule, rule_named
from distill3d.adapters.lora import adapter_state, add_lora, lora_layers
from distill3d.checkpoints.read import read_metadata, read_weights
from distill3d.errors import CheckpointError, ConfigError
from distill3d.files import PathLike, atomic_write_bytes

FORMAT = 1
HEADER = "distill3d-adapter"
"""The one entry of the safetensors header: JSON with the fields of `AdapterInfo`, without its path."""
FILE = "adapter.safetensors"
"""What an adapter is called in a run folder."""


@dataclass(frozen=True, kw_only=True)
class AdapterInfo:
    """What the header of an adapter file says."""

    path: Path
    model: str
    """Name of the base in the registry of models."""
    rule: Rule
    rank: int
    alpha: float
    layers: tuple[str, ...]
    """Names of the adapted layers."""
    base_hash: str
    """`layers_hash` of the base it was trained on."""
    meta: Mapping[str, Any]
    """Licence and provenance."""


def save_adapter(path: PathLike, model: nn.Module, *, model_name: str, meta: Mapping[str, Any]) -> Path:
    """Write the adapters of a network, without the network.

    Args:
        path: a name ending in .safetensors; replaced in one step.
        model: carries adapters that were added alike.
        model_name: of the base in the registry.
        meta: licence, provenance, scores: anything JSON can hold. "licence" is always there (default: that of the
            base weights).

    Raises:
        ConfigError: there are no adapters, or they are of several kinds.
        OutputError: it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"adapters are written as .safetensors, not {path.name!r}")
    rule, rank, alpha = common_settings(model)
    header = {
        "format": FORMAT,
        "model": model_name,
        "rule": rule,
        "rank": rank,
        "alpha": alpha,
        "layers": list(lora_layers(model)),
        "base_hash": layers_hash(model, list(lora_layers(model))),
        "meta": {"licence": "that of the base weights", **meta},
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_state(model).items()}
    atomic_write_bytes(path, safetensors.torch.save(tensors, {HEADER: json.dumps(header, sort_keys=True)}))
    return path


def common_settings(model: nn.Module) -> tuple[Rule, int, float]:
    """Rule, rank and alpha of the adapters of a network.

    Raises:
        ConfigError: there are no adapters, or they are of several kinds.
    """
    found = {(layer.rule, layer.rank, layer.alpha) for layer in lora_layers(model).values()}
    if len(found) != 1:
        raise ConfigError(
            f"This {type(model).__name__} carries adapters of {len(found)} kinds, expected one: "
            "rule, rank and alpha are the same for all layers of a file."
        )
    return found.pop()


def load_adapter(path: PathLike, model: nn.Module, *, check_base: bool = True) -> AdapterInfo:
    """Put the adapters of one of our files on their base, in place.

    Args:
        path: a file that `save_adapter` wrote, or a run folder with one.
        model: the base, without adapters.
        check_base: refuse a base with other weights than those that the adapter was trained on.

    Raises:
        CheckpointError: no such file, not one of ours, or made for another network or other weights.
    """
    info = read_adapter(path)
    tensors = read_weights(info.path)
    absent = [name for name in info.layers if not isinstance(_find(model, name), nn.Linear)]
    if absent:
        raise CheckpointError(
            f"{info.path} adapts {len(info.layers)} layers of {info.model}, but this {type(model).__name__} has no "
            f"linear layer {absent[0]!r}. Give the base it was made for."
        )
    if check_base and (found := layers_hash(model, info.layers)) != info.base_hash:
        raise CheckpointError(
            f"{info.path} was trained on other weights of {info.model} (hash {info.base_hash[:12]} of the adapted "
            f"layers) than these ({found[:12]}). Give the weights that it was trained on."
        )
    attach(model, info.layers, tensors, rule=info.rule, rank=info.rank, alpha=info.alpha, source=str(info.path))
    return info


def attach(
    model: nn.Module,
    layers: Sequence[str],
    tensors: Mapping[str, Tensor],
    *,
    rule: Rule,
    rank: int,
    alpha: float,
    source: str,
) -> None:
    """Add adapters to the layers of these names and fill them, strictly.

    Args:
        model: changed in place.
        layers: names of linear layers.
        tensors: `lora_A` and `lora_B` of each layer, as `adapter_state` names them.
        rule: of renormalisation.
        rank: of the change.
        alpha: the change is scaled by alpha / rank.
        source: for the words of an error.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; then nothing has changed.
    """
    expected = {}
    for name in layers:
        layer: Any = model.get_submodule(name)
        expected[f"{name}.lora_A"] = (rank, layer.in_features)
        expected[f"{name}.lora_B"] = (layer.out_features, rank)
    missing, left_over = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    shapes = [name for name in expected if name in tensors and tuple(tensors[name].shape) != expected[name]]
    if missing or left_over or shapes:
        raise CheckpointError(
            f"{source} does not fit: {len(missing)} matrices missing {missing[:3]}, {len(left_over)} left over "
            f"{left_over[:3]}, {len(shapes)} of another shape {shapes[:3]}. Check the base and its variant."
        )
    pattern = "|".join(f"^{_escape(name)}$" for name in layers)
    add_lora(model, pattern, rank, alpha, rule)
    with torch.no_grad():
        for name, parameter in adapter_state(model).items():
            parameter.copy_(tensors[name])


def read_adapter(path: PathLike) -> AdapterInfo:
    """Only the header of an adapter file or of a run folder with one.

    Raises:
        CheckpointError: no such file, not one of ours, or from a newer version.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE
    if not file.is_file():
        raise CheckpointError(f"There is no adapter at {path}. Give a file or run folder of `distill3d finetune`.")
    text = read_metadata(file).get(HEADER)
    if text is None:
        raise CheckpointError(
            f"{file} was not written by distill3d as an adapter. For a file of Fin3R's authors name the base "
            "(`distill3d weights convert`)."
        )
    header = json.loads(text)
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} is an adapter file of format {header.get('format')!r}, and we know {FORMAT}. Update distill3d."
        )
    return AdapterInfo(
        path=file,
        model=header["model"],
        rule=rule_named(header["rule"]),
        rank=header["rank"],
        alpha=header["alpha"],
        layers=tuple(header["layers"]),
        base_hash=header["base_hash"],
        meta=header["meta"],
    )


def is_adapter(path: PathLike) -> bool:
    """Whether a file, or what lies in a run folder, is an adapter of ours."""
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    return file.is_file() and file.suffix == ".safetensors" and HEADER in read_metadata(file)


def layers_hash(model: nn.Module, layers: Sequence[str]) -> str:
    """SHA-256 over the frozen weights of these layers in float32: a renormalised adapter fits no others."""
    digest = hashlib.sha256()
    for name in sorted(layers):
        layer: Any = model.get_submodule(name)
        digest.update(name.encode())
        digest.update(layer.weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _find(model: nn.Module, name: str) -> nn.Module | None:
    return dict(model.named_modules()).get(name)


def _escape(name: str) -> str:
    return name.replace(".", r"\.")
