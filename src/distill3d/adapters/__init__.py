"""Adapters: renormalised LoRA on any network, merged away again, kept in files that others can read."""

from distill3d.adapters.lora import (
    LoraConfig,
    LoraLinear,
    adapter_state,
    adapters_off,
    add_lora,
    lora_layers,
    merge,
    remove,
)
from distill3d.adapters.rules import RULES

__all__ = [
    "RULES",
    "LoraConfig",
    "LoraLinear",
    "adapter_state",
    "adapters_off",
    "add_lora",
    "lora_layers",
    "merge",
    "remove",
]
