"""Export as a standard peft adapter: a renormalised LoRA is exactly DoRA, whose magnitude is the length of each row.

DoRA (Liu et al., 2024) computes m (W + s B A) / |W + s B A|, row by row. With m = f |W + s B A|, where f is the factor
of a weight rule, that is f (W + s B A): our layer. Written as plain LoRA it would silently lose the factor.
"""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.adapters.files import common_settings
from distill3d.adapters.lora import NOT_MERGEABLE, LoraLinear, lora_layers
from distill3d.adapters.rules import weight_factor
from distill3d.checkpoints.keys import restore_keys
from distill3d.errors import ConfigError
from distill3d.files import PathLike, atomic_write_bytes, write_json
from distill3d.models import ModelSpec

PREFIX = "base_model.model."
"""Stands before every name in a file of peft."""


@torch.no_grad()
def row_magnitudes(layer: LoraLinear) -> Float[Tensor, " out"]:
    """Length of every row of the merged weight, in float64: DoRA's magnitude."""
    weight, first, second = layer.weight.double(), layer.lora_A.double(), layer.lora_B.double()
    length: Tensor = torch.linalg.vector_norm(weight + layer.scaling * second @ first, dim=1)
    return length * weight_factor(layer.rule, layer.weight, layer.lora_A, layer.lora_B, layer.scaling)


def export_dora(folder: PathLike, model: nn.Module, *, spec: ModelSpec | None = None) -> Path:
    """Write `adapter_config.json` and `adapter_model.safetensors`, which `PeftModel.from_pretrained` reads.

    Args:
        folder: where to write; files of these names are replaced.
        model: carries adapters of a weight rule.
        spec: name the layers as the official network does, for which the adapter then is; None for our names.

    Raises:
        ConfigError: there are no adapters, or their rule depends on the token.
        OutputError: the files cannot be written.
    """
    folder = Path(folder)
    rule, rank, alpha = common_settings(model)
    if rule == "activation_qkv":
        raise ConfigError(NOT_MERGEABLE)
    names: list[str] = []
    tensors: dict[str, Tensor] = {}
    for name, layer in lora_layers(model).items():
        shown = name if spec is None else _official_layer(name, spec)
        names.append(shown)
        tensors[f"{PREFIX}{shown}.lora_A.weight"] = layer.lora_A
        tensors[f"{PREFIX}{shown}.lora_B.weight"] = layer.lora_B
        tensors[f"{PREFIX}{shown}.lora_magnitude_vector"] = row_magnitudes(layer).float()
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "inference_mode": True,
        "use_dora": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": names,
        "base_model_name_or_path": None,
    }
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_write_bytes(folder / "adapter_model.safetensors", safetensors.torch.save(stored, {"format": "pt"}))
    write_json(folder / "adapter_config.json", config)
    return folder


def _official_layer(name: str, spec: ModelSpec) -> str:
    (official,) = restore_keys({f"{name}.weight": torch.empty(0)}, spec.renames)
    return official.removesuffix(".weight")
