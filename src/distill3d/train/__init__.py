"""Distilling: recipes, samples from a cache, one loop, checkpoints, resume."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill3d.train.config import DistillConfig as DistillConfig
    from distill3d.train.distil import train as train
    from distill3d.train.recipes import get_recipe as get_recipe

_HOMES = {
    "DistillConfig": "distill3d.train.config",
    "get_recipe": "distill3d.train.recipes",
    "train": "distill3d.train.distil",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distill3d.train' has no attribute {name!r}")
