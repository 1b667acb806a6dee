"""Adapters: renormalised LoRA on any network, merged away again, kept in files that others can read."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill3d.adapters.config import RULES as RULES
    from distill3d.adapters.config import LoraConfig as LoraConfig
    from distill3d.adapters.files import load_adapter as load_adapter
    from distill3d.adapters.files import save_adapter as save_adapter
    from distill3d.adapters.lora import LoraLinear as LoraLinear
    from distill3d.adapters.lora import adapter_state as adapter_state
    from distill3d.adapters.lora import adapters_off as adapters_off
    from distill3d.adapters.lora import add_lora as add_lora
    from distill3d.adapters.lora import lora_layers as lora_layers
    from distill3d.adapters.lora import merge as merge
    from distill3d.adapters.lora import remove as remove
    from distill3d.adapters.official import load_fin3r as load_fin3r
    from distill3d.adapters.peft import export_dora as export_dora

_HOMES = {
    "RULES": "distill3d.adapters.config",
    "LoraConfig": "distill3d.adapters.config",
    "LoraLinear": "distill3d.adapters.lora",
    "export_dora": "distill3d.adapters.peft",
    "load_adapter": "distill3d.adapters.files",
    "load_fin3r": "distill3d.adapters.official",
    "save_adapter": "distill3d.adapters.files",
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
