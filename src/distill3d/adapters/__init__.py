"""Adapters: renormalised LoRA on any network, merged away again, kept in files that others can read."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill3d.adapters.config import RULES as RULES
    from distill3d.adapters.config import LoraConfig as LoraConfig
    from distill3d.adapters.lora import LoraLinear as LoraLinear
    from distill3d.adapters.lora import adapter_state as adapter_state
    from distill3d.adapters.lora import adapters_off as adapters_off
    from distill3d.adapters.lora import add_lora as add_lora
    from distill3d.adapters.lora import lora_layers as lora_layers
    from distill3d.adapters.lora import merge as merge
    from distill3d.adapters.lora import remove as remove

_HOMES = {
    "RULES": "distill3d.adapters.config",
    "LoraConfig": "distill3d.adapters.config",
    "LoraLinear": "distill3d.adapters.lora",
    "adapter_state": "distill3d.adapters.lora",
    "adapters_off": "distill3d.adapters.lora",
    "add_lora": "distill3d.adapters.lora",
    "lora_layers": "distill3d.adapters.lora",
    "merge": "distill3d.adapters.lora",
    "remove": "distill3d.adapters.lora",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distill3d.adapters' has no attribute {name!r}")
