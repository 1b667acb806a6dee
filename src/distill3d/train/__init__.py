"""Training: one loop with checkpoints and resume, and two jobs for it, distilling a student and refining an encoder."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill3d.train.config import DistillConfig as DistillConfig
    from distill3d.train.distil import train as train
    from distill3d.train.recipes import get_recipe as get_recipe
    from distill3d.train.refine import finetune as finetune
    from distill3d.train.refine_config import RefineConfig as RefineConfig
    from distill3d.train.samples import CacheDataset as CacheDataset

_HOMES = {
    "CacheDataset": "distill3d.train.samples",
    "DistillConfig": "distill3d.train.config",
    "RefineConfig": "distill3d.train.refine_config",
    "finetune": "distill3d.train.refine",
    "get_recipe": "distill3d.train.recipes",
    "train": "distill3d.train.distil",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distill3d.train' has no attribute {name!r}")
