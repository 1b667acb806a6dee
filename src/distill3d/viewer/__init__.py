"""The report: one HTML page with photos, maps, curves, scores and a point cloud to turn; and pictures of clouds."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill3d.viewer.pointcloud import CloudScene as CloudScene
    from distill3d.viewer.pointcloud import scene_from_reconstruction as scene_from_reconstruction
    from distill3d.viewer.records import ReportData as ReportData
    from distill3d.viewer.render import render_pointcloud as render_pointcloud
    from distill3d.viewer.report import write_report as write_report
    from distill3d.viewer.rows import view_rows as view_rows

_HOMES = {
    "CloudScene": "pointcloud",
    "ReportData": "records",
    "render_pointcloud": "render",
    "scene_from_reconstruction": "pointcloud",
    "view_rows": "rows",
    "write_report": "report",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"distill3d.viewer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'distill3d.viewer' has no attribute {name!r}")
