"""Point cloud and cameras as one GLB (binary glTF 2.0) that opens upright.

Written by hand rather than through trimesh: glTF wants *linear* vertex colours, which need more than 8 bits to hold a
photo without bands in its shadows (float32 here: normalised 16 bits would be smaller, but trimesh misreads them), and
unlit materials, so that viewers show the photo's colours and not their own lamps.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from distill3d.errors import OutputError
from distill3d.export.cloud import gather_cloud
from distill3d.export.frusta import EDGES, frustum_depth, frustum_points, view_colors
from distill3d.export.upright import OPENCV_TO_GLTF, gltf_from_world
from distill3d.files import atomic_write_bytes
from distill3d.types import Reconstruction

POINTS, LINES = 0, 1  # primitive modes
FLOAT, UINT = 5126, 5125  # component types
ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963


def linear_colors(srgb: UInt8[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
    """Turn 8-bit sRGB into glTF's linear RGB, float32 in [0, 1]."""
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear.astype(np.float32)[srgb])


@dataclass
class _Buffer:
    """The binary half of a GLB while it grows."""

    data: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def add(self, array: np.ndarray, component: int, kind: str, target: int, **extra: Any) -> int:
        """Append an array and return the number of its accessor."""
        self.data += b"\0" * (-len(self.data) % 4)
        raw = np.ascontiguousarray(array).tobytes()
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(raw), "target": target})
        self.data += raw
        view = len(self.views) - 1
        accessor = {"bufferView": view, "componentType": component, "count": len(array), "type": kind}
        self.accessors.append(accessor | extra)
        return len(self.accessors) - 1

    def add_positions(self, points: np.ndarray) -> int:
        """Append positions with the bounds that glTF demands."""
        points = points.astype("<f4")
        bounds = {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
        return self.add(points, FLOAT, "VEC3", ARRAY_BUFFER, **bounds)

    def add_colors(self, srgb: np.ndarray) -> int:
        """Append sRGB bytes as linear colours."""
        return self.add(linear_colors(srgb).astype("<f4"), FLOAT, "VEC3", ARRAY_BUFFER)


def _camera(name: str, intrinsics: Float[np.ndarray, "3 3"], size: tuple[int, int]) -> dict[str, Any]:
    """Describe a camera to glTF, which knows the field of view but no principal point."""
    height, width = size
    yfov = 2 * float(np.arctan(0.5 * height / intrinsics[1, 1]))
    perspective = {"yfov": yfov, "aspectRatio": width / height * intrinsics[1, 1] / intrinsics[0, 0], "znear": 1e-3}
    return {"type": "perspective", "name": name, "perspective": perspective}


def _pack(document: dict[str, Any], data: bytes) -> bytes:
    """Join JSON and binary chunk under the GLB header (both padded to four bytes)."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    data += b"\0" * (-len(data) % 4)
    length = 12 + 8 + len(text) + 8 + len(data)
    words = np.array([0x46546C67, 2, length, len(text), 0x4E4F534A], dtype="<u4").tobytes()
    return words + text + np.array([len(data), 0x004E4942], dtype="<u4").tobytes() + data


def write_glb(
    path: Path, reconstruction: Reconstruction, *, max_points: int | None = None, seed: int = 0, level: bool = True
) -> Path:
    """Write the kept points, a frustum and a glTF camera per view.

    Vertices stay in the reconstruction's world (OpenCV axes); the node "world" above them turns it to glTF axes, y up
    and z back, levelled by `estimate_up` unless `level` is off. Its matrix is also in the node's extras.

    Raises:
        OutputError: no point to write, cameras missing, or no room for the file.
    """
    prediction = reconstruction.prediction
    if prediction.intrinsics is None or prediction.world_from_camera is None:
        raise OutputError("the reconstruction has no cameras; expected intrinsics and world_from_camera")
    cloud = gather_cloud(reconstruction, max_points=max_points, seed=seed)
    intrinsics = prediction.intrinsics[0].double().cpu().numpy()
    poses = prediction.world_from_camera[0].double().cpu().numpy()
    height, width = reconstruction.views.images.shape[-2:]
    depth = frustum_depth(cloud.points, poses[:, :3, 3])
    colors = view_colors(len(poses))

    buffer = _Buffer()
    cloud_attributes = {"POSITION": buffer.add_positions(cloud.points), "COLOR_0": buffer.add_colors(cloud.colors)}
    meshes = [{"name": "points", "primitives": [{"attributes": cloud_attributes, "mode": POINTS, "material": 0}]}]
    edges = buffer.add(EDGES.astype("<u4").reshape(-1), UINT, "SCALAR", ELEMENT_BUFFER)
    matrix = gltf_from_world(poses, level=level)
    nodes: list[dict[str, Any]] = [
        {
            "name": "world",
            "matrix": matrix.T.ravel().tolist(),  # glTF matrices are column-major
            "extras": {"gltf_from_world_rows": matrix.tolist(), "frame_of_vertices": "OpenCV, camera of view 0"},
        },
        {"name": "points", "mesh": 0},
    ]
    cameras = []
    for index, name in enumerate(reconstruction.names):
        corners = frustum_points(intrinsics[index], poses[index], (height, width), depth)
        attributes = {
            "POSITION": buffer.add_positions(corners),
            "COLOR_0": buffer.add_colors(np.repeat(colors[index : index + 1], len(corners), axis=0)),
        }
        primitive = {"attributes": attributes, "indices": edges, "mode": LINES, "material": 0}
        meshes.append({"name": f"frustum {name}", "primitives": [primitive]})
        nodes.append({"name": f"frustum {name}", "mesh": len(meshes) - 1})
        cameras.append(_camera(name, intrinsics[index], (height, width)))
        # A glTF camera looks along -z with y up: turn ours before its pose is applied.
        pose = poses[index].copy()
        pose[:3, :3] = pose[:3, :3] @ OPENCV_TO_GLTF
        nodes.append({"name": name, "camera": index, "matrix": pose.T.ravel().tolist()})
    nodes[0]["children"] = list(range(1, len(nodes)))
    document = {
        "asset": {"version": "2.0", "generator": "distill3d"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes,
        "meshes": meshes,
        "cameras": cameras,
        "materials": [{"name": "photo", "extensions": {"KHR_materials_unlit": {}}}],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data) + (-len(buffer.data) % 4)}],
    }
    atomic_write_bytes(path, _pack(document, bytes(buffer.data)))
    return path
