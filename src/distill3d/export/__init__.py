"""Reconstructions as files that other programs open: PLY, GLB, depth PNG and npz, cameras and info JSON."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill3d.export.cameras import write_cameras as write_cameras
    from distill3d.export.cloud import PointCloud as PointCloud
    from distill3d.export.cloud import gather_cloud as gather_cloud
    from distill3d.export.depth import write_depth as write_depth
    from distill3d.export.folder import export_reconstruction as export_reconstruction
    from distill3d.export.glb import write_glb as write_glb
    from distill3d.export.ply import write_ply as write_ply

_HOMES = {
    "PointCloud": "cloud",
    "export_reconstruction": "folder",
    "gather_cloud": "cloud",
    "write_cameras": "cameras",
    "write_depth": "depth",
    "write_glb": "glb",
    "write_ply": "ply",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"distill3d.export.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'distill3d.export' has no attribute {name!r}")
