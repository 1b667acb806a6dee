"""What training minimises: functions of predictions, targets and masks, in float32 whatever the network ran in."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill3d.losses.config import DistillLossConfig as DistillLossConfig
    from distill3d.losses.config import paper_equations as paper_equations
    from distill3d.losses.config import reference_code as reference_code
    from distill3d.losses.distill import distill_loss as distill_loss
    from distill3d.losses.terms import LossTerms as LossTerms

_HOMES = {
    "DistillLossConfig": "distill3d.losses.config",
    "LossTerms": "distill3d.losses.terms",
    "distill_loss": "distill3d.losses.distill",
    "paper_equations": "distill3d.losses.config",
    "reference_code": "distill3d.losses.config",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distill3d.losses' has no attribute {name!r}")
