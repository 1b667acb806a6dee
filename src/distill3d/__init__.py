"""distill3d: distil large feed-forward 3D reconstruction networks into small ones, and sharpen their geometry.

The public names are loaded when first used, so that `import distill3d` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distill3d.checkpoints import load_model as load_model
    from distill3d.errors import Distill3dError as Distill3dError
    from distill3d.infer.reconstruct import reconstruct as reconstruct
    from distill3d.types import Prediction as Prediction
    from distill3d.types import Reconstruction as Reconstruction
    from distill3d.types import Views as Views

_HOMES = {
    "Distill3dError": "distill3d.errors",
    "Prediction": "distill3d.types",
    "Reconstruction": "distill3d.types",
    "Views": "distill3d.types",
    "load_model": "distill3d.checkpoints",
    "reconstruct": "distill3d.infer.reconstruct",
}
_PACKAGES = (
    "adapters",
    "cache",
    "checkpoints",
    "data",
    "eval",
    "geometry",
    "infer",
    "losses",
    "models",
    "teachers",
    "train",
)

__all__ = [*_HOMES, *_PACKAGES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"distill3d.{name}")
    raise AttributeError(f"module 'distill3d' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
