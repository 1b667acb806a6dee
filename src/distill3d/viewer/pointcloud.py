"""The point cloud of the report: framed, packed for the page, and drawn for where the page cannot."""

import base64
import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from distill3d.errors import OutputError
from distill3d.export.cloud import PointCloud, gather_cloud
from distill3d.export.frusta import EDGES, frustum_depth, frustum_points, view_colors
from distill3d.export.upright import gltf_from_world
from distill3d.types import Reconstruction
from distill3d.viewer.maps import confidence_levels, jpeg_uri, ramp, shrink
from distill3d.viewer.render import look_from, render_pointcloud

FIELD_OF_VIEW_DEG = 45.0
MIN_FACING = 0.1
"""Least cosine between a point's normal and the ray of its photo, for the point to be shown."""


@dataclass(frozen=True, kw_only=True)
class CloudScene:
    """A cloud and the cameras that saw it, in one world frame (OpenCV axes)."""

    cloud: PointCloud
    names: tuple[str, ...]
    intrinsics: Float[np.ndarray, "views 3 3"]
    world_from_camera: Float[np.ndarray, "views 4 4"]
    size: tuple[int, int]
    """Height and width of the images that `intrinsics` speak of."""
    photos: tuple[UInt8[np.ndarray, "_ _ 3"], ...] = ()
    """Shown small in the frusta; one per view, or none."""


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How a scene is shown at first, in display axes (y up, z towards the viewer)."""

    display_from_world: Float[np.ndarray, "4 4"]
    target: Float[np.ndarray, "3"]
    direction: Float[np.ndarray, "3"]
    """From the target to the eye, a unit vector."""
    fit: tuple[float, float]
    """Distances from which the scene fills a square picture's width and its height."""
    radius: float
    spacing: float
    """Diameter of a point's disc divided by the distance it was photographed from, so that surfaces close."""

    def eye(self, aspect: float) -> Float[np.ndarray, "3"]:
        """Where to stand so that all is seen in a picture of this width / height."""
        return self.target + max(self.fit[0] / aspect, self.fit[1]) * self.direction


def scene_from_reconstruction(
    reconstruction: Reconstruction, *, max_points: int = 160_000, seed: int = 0
) -> CloudScene:
    """Take what the viewer needs from a reconstruction; above `max_points` an even random choice.

    Points seen at a grazing angle are left out: most are the "flying pixels" that hang between a near and a far
    surface. The exported files keep them.

    Raises:
        OutputError: no kept point, or no cameras.
    """
    prediction = reconstruction.prediction
    if prediction.intrinsics is None or prediction.world_from_camera is None:
        raise OutputError("the reconstruction has no cameras; expected intrinsics and world_from_camera")
    images = reconstruction.views.images[0].detach().float().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy()
    height, width = images.shape[1:3]
    poses = prediction.world_from_camera[0].detach().double().cpu().numpy()
    return CloudScene(
        cloud=_without_grazing(gather_cloud(reconstruction, max_points=max_points, seed=seed), poses[:, :3, 3]),
        names=reconstruction.names,
        intrinsics=prediction.intrinsics[0].detach().double().cpu().numpy(),
        world_from_camera=poses,
        size=(height, width),
        photos=tuple((images * 255).round().astype(np.uint8)),
    )


def _facing(cloud: PointCloud, centers: Float[np.ndarray, "views 3"]) -> Float[np.ndarray, " points"]:
    """Cosine between each point's normal and the ray back to the camera that saw it."""
    back = centers[cloud.view] - cloud.points
    return np.asarray((back * cloud.normal).sum(axis=1) / np.maximum(np.linalg.norm(back, axis=1), 1e-12))


def _without_grazing(cloud: PointCloud, centers: Float[np.ndarray, "views 3"]) -> PointCloud:
    keep = (_facing(cloud, centers) >= MIN_FACING) | (np.abs(cloud.normal).sum(axis=1) == 0)
    if not keep.any():
        return cloud
    return PointCloud(**{field.name: getattr(cloud, field.name)[keep] for field in dataclasses.fields(cloud)})


def _spread(facing: np.ndarray) -> Float[np.ndarray, " points"]:
    """By how much more a pixel covers of a surface that it sees at an angle (tempered, at most twice)."""
    return np.asarray(1 / np.sqrt(np.maximum(facing, 0.25)))


def frame_scene(scene: CloudScene) -> Framing:
    """Choose where to look from: behind the cameras, a little to the side and above, far enough to see it all."""
    display_from_world = gltf_from_world(scene.world_from_camera)
    rotation = display_from_world[:3, :3]
    points = scene.cloud.points.astype(np.float64) @ rotation.T
    centers = scene.world_from_camera[:, :3, 3] @ rotation.T
    forward = (scene.world_from_camera[:, :3, 2] @ rotation.T).mean(axis=0)
    low, high = np.percentile(points, 3, axis=0), np.percentile(points, 97, axis=0)
    target = (low + high) / 2
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-6)
    away = centers.mean(axis=0) - target
    if np.linalg.norm(away) < 0.5 * radius:  # the cameras stand inside what they saw: step back from where they look
        away = -forward if np.linalg.norm(forward) > 0.2 else np.array([0.0, 0.0, 1.0])
    azimuth = np.arctan2(away[0], away[2]) + np.radians(25)
    elevation = np.radians(32)
    direction = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    target, fit = _fit(points, target, direction)
    height, width = scene.size
    share = len(scene.names) * height * width / max(len(scene.cloud), 1)
    focal = float(np.median(scene.intrinsics[:, 0, 0]))
    return Framing(
        display_from_world=display_from_world,
        target=target,
        direction=direction,
        fit=fit,
        radius=radius,
        spacing=1.35 * float(np.sqrt(max(share, 1.0))) / max(focal, 1e-6),
    )


def _fit(
    points: Float[np.ndarray, "points 3"], target: Float[np.ndarray, "3"], direction: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "3"], tuple[float, float]]:
    """Center the points in the picture and find how far to stand for its width and height, but for stray points."""
    axes = look_from(target + direction, target, np.array([0.0, 1.0, 0.0]))[:3, :3]
    tangent = float(np.tan(np.radians(FIELD_OF_VIEW_DEG) / 2)) * 0.94  # a little air at the border
    local = (points - target) @ axes
    fit = (0.0, 0.0)
    for _ in range(3):
        # A point at depth w behind the target and x beside it is seen from distance d if |x| <= tangent * (d + w).
        needed = np.percentile(np.abs(local[:, :2]) / tangent - local[:, 2:], 99.3, axis=0)
        fit = (max(float(needed[0]), 1e-6), max(float(needed[1]), 1e-6))
        reach = max(fit) + local[:, 2]
        front = reach > 1e-3 * max(fit)
        seen = local[front, :2] / reach[front, None]
        shift = np.r_[np.percentile(seen, [0.5, 99.5], axis=0).mean(axis=0) * max(fit), 0.0]
        target, local = target + axes @ shift, local - shift
    return target, fit


def pack_scene(scene: CloudScene) -> dict[str, Any]:
    """Pack a scene into the JSON that `static/pointcloud.js` reads, about 20 bytes a point in base64.

    Positions are in display axes, 16 bits per axis over the cloud's extent (`origin + step * value`; error at most half
    a step), colours 8 bits, confidence 8 bits on a log scale, view 16 bits, normals 8 bits an axis; all little-endian.
    """
    framing = frame_scene(scene)
    rotation = framing.display_from_world[:3, :3]
    points = scene.cloud.points.astype(np.float64) @ rotation.T
    origin = points.min(axis=0)
    step = np.maximum((points.max(axis=0) - origin) / 65535, 1e-12)
    centers = scene.world_from_camera[:, :3, 3]
    depth = frustum_depth(scene.cloud.points, centers)
    cameras = []
    for index, name in enumerate(scene.names):
        pose = scene.world_from_camera[index]
        corners = frustum_points(scene.intrinsics[index], pose, scene.size, depth) @ rotation.T
        own = scene.cloud.view == index
        distance = np.median((scene.cloud.points[own] - centers[index]) @ pose[:3, 2]) if own.any() else framing.radius
        camera = {
            "name": name,
            "center": _rounded(rotation @ centers[index]),
            "forward": _rounded(rotation @ pose[:3, 2]),
            "corners": [_rounded(corner) for corner in corners],
            "fov_deg": round(2 * float(np.degrees(np.arctan(scene.size[0] / 2 / scene.intrinsics[index, 1, 1]))), 3),
            "distance": max(float(distance), 1e-3 * framing.radius),
        }
        if scene.photos:
            camera["thumbnail"] = jpeg_uri(shrink(scene.photos[index], 112), quality=72)
        cameras.append(camera)
    levels, _ = confidence_levels(scene.cloud.confidence)
    return {
        "format": 1,
        "count": len(scene.cloud),
        "origin": origin.tolist(),
        "step": step.tolist(),
        "positions": _base64(np.round((points - origin) / step).clip(0, 65535).astype("<u2")),
        "colors": _base64(scene.cloud.colors),
        "confidence": _base64(levels),
        "views": _base64(scene.cloud.view.astype("<u2")),
        "normals": _base64(np.round(scene.cloud.normal @ rotation.T * 127).astype(np.int8)),
        "view_colors": _base64(view_colors(len(scene.names))),
        "ramp": _base64(ramp("confidence")),
        "cameras": cameras,
        "edges": EDGES.tolist(),
        "target": _rounded(framing.target),
        "direction": _rounded(framing.direction),
        "fit": list(framing.fit),
        "radius": framing.radius,
        "spacing": framing.spacing,
    }


def picture_of_scene(
    scene: CloudScene, size: tuple[int, int], *, background: tuple[int, int, int] | None = None, cameras: bool = True
) -> UInt8[np.ndarray, "height width channels"]:
    """Draw the scene as the page first shows it, with the frusta as lines of points unless `cameras` is off."""
    framing = frame_scene(scene)
    rotation = framing.display_from_world[:3, :3]
    centers = scene.world_from_camera[:, :3, 3] @ rotation.T
    points = scene.cloud.points.astype(np.float64) @ rotation.T
    distance = np.linalg.norm(points - centers[scene.cloud.view], axis=1)
    facing = _facing(scene.cloud, scene.world_from_camera[:, :3, 3])
    radius = 0.5 * framing.spacing * distance * _spread(facing)
    normal = scene.cloud.normal @ rotation.T
    colors = scene.cloud.colors
    if cameras:
        depth = frustum_depth(scene.cloud.points, scene.world_from_camera[:, :3, 3])
        lines, tints = _frustum_lines(scene, depth)
        points = np.concatenate([points, lines @ rotation.T])
        colors = np.concatenate([colors, tints])
        radius = np.concatenate([radius, np.full(len(lines), 0.0015 * framing.radius)])
        normal = np.concatenate([normal, np.zeros_like(lines)])
    eye = framing.eye(size[1] / size[0])
    return render_pointcloud(
        points,
        colors,
        size,
        world_from_camera=look_from(eye, framing.target, np.array([0.0, 1.0, 0.0])),
        fov_y_deg=FIELD_OF_VIEW_DEG,
        radius=radius,
        normal=normal,
        background=background,
    )


def _frustum_lines(scene: CloudScene, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """Sample the edges of all frusta densely, in the world frame, with the colours of their views."""
    along = np.linspace(0, 1, 160)[:, None]
    lines, colors = [], view_colors(len(scene.names))
    for index in range(len(scene.names)):
        corners = frustum_points(scene.intrinsics[index], scene.world_from_camera[index], scene.size, depth)
        lines.append(np.concatenate([corners[a] + along * (corners[b] - corners[a]) for a, b in EDGES]))
    return np.concatenate(lines), np.repeat(colors, [len(line) for line in lines], axis=0)


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
