"""Pictures of point clouds without a GPU: z-buffered discs (surfels) with eye-dome lighting, in numpy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from distill3d.errors import OutputError

MAX_RADIUS_PX = 24
MIN_FACING = 0.3
"""A disc seen edge-on keeps this share of its width, so that thin surfaces do not vanish."""


def look_from(
    eye: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], up: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    """Pose of an OpenCV camera (x right, y down, z forward) at `eye` that looks at `target`, as world_from_camera."""
    forward = target - eye
    forward = forward / max(float(np.linalg.norm(forward)), 1e-12)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-6:  # straight up or down: any side will do
        right = np.cross(forward, np.array([0.3, 0.2, 1.0]))
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, eye], axis=1)
    return pose


def render_pointcloud(
    points: Float[np.ndarray, "points 3"],
    colors: UInt8[np.ndarray, "points 3"],
    size: tuple[int, int],
    *,
    world_from_camera: Float[np.ndarray, "4 4"],
    fov_y_deg: float = 45.0,
    radius: float | Float[np.ndarray, " points"] = 0.0,
    normal: Float[np.ndarray, "points 3"] | None = None,
    background: tuple[int, int, int] | None = None,
    shading: float = 6.0,
    supersample: int = 2,
) -> UInt8[np.ndarray, "height width channels"]:
    """Draw a cloud to an image of `size` (height, width): RGB over `background`, or RGBA where that is None.

    `radius` is that of a point's disc in world units (at least one pixel is drawn). With `normal`, discs lie
    in their surface, and those that face away are left out, so that a room can be looked into from outside; a zero
    normal means a disc that always faces the camera. `shading` is the strength
    of the eye-dome lighting, 0 for none.

    Raises:
        OutputError: an empty image size.
    """
    if min(size) < 1 or supersample < 1:
        raise OutputError(f"cannot draw an image of {size[0]} x {size[1]} pixels; expected at least 1 x 1")
    height, width = size[0] * supersample, size[1] * supersample
    focal = 0.5 * height / np.tan(np.radians(fov_y_deg) / 2)
    eye = world_from_camera[:3, 3]
    local = (points - eye) @ world_from_camera[:3, :3]
    shown = np.isfinite(local).all(axis=1) & (local[:, 2] > 1e-6)
    facing = np.ones(len(points))
    across = np.zeros((len(points), 2))  # on the picture, the direction in which a disc is foreshortened
    if normal is not None:
        turned = normal @ world_from_camera[:3, :3]
        known = (np.abs(turned).sum(axis=1) > 0) & shown
        facing[known] = -(local[known] * turned[known]).sum(axis=1) / np.linalg.norm(local[known], axis=1)
        shown &= facing >= 0
        across[known] = turned[known, :2] / np.maximum(np.linalg.norm(turned[known, :2], axis=1), 1e-9)[:, None]
    order = np.flatnonzero(shown)
    order = order[np.argsort(-local[order, 2], kind="stable")]  # far to near: the last one written is the nearest
    depth = local[order, 2]
    columns = np.floor(local[order, 0] / depth * focal + 0.5 * width)
    rows = np.floor(local[order, 1] / depth * focal + 0.5 * height)
    discs = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(points),))[order] * focal / depth
    discs = np.clip(discs, 0.5, MAX_RADIUS_PX * supersample)
    reach = int(np.ceil(discs.max())) if len(discs) else 0
    near = (np.abs(columns - width / 2) < width / 2 + reach) & (np.abs(rows - height / 2) < height / 2 + reach)
    order, depth, discs = order[near], depth[near], discs[near]
    discs_on_picture = _Discs(
        rows[near].astype(np.int64), columns[near].astype(np.int64), depth, discs, across[order], facing[order]
    )
    zbuffer, winner = _splat(discs_on_picture, (height, width))

    image = np.zeros((height, width, 4))
    hit = winner >= 0
    image[hit, :3] = colors[order[winner[hit]]] / 255.0
    image[hit, 3] = 1.0
    if shading > 0:
        image[..., :3] *= _dome_shade(zbuffer, supersample, shading)[..., None]
    # Averaging colour weighted by coverage keeps the borders clean.
    blocks = image.reshape(size[0], supersample, size[1], supersample, 4)
    alpha = blocks[..., 3].mean(axis=(1, 3))
    color = blocks[..., :3].sum(axis=(1, 3)) / np.maximum(blocks[..., 3].sum(axis=(1, 3)), 1)[..., None]
    if background is None:
        return _bytes(np.concatenate([color, alpha[..., None]], axis=-1))
    backdrop = np.array(background) / 255.0
    return _bytes(color * alpha[..., None] + backdrop * (1 - alpha[..., None]))


def _bytes(values: np.ndarray) -> UInt8[np.ndarray, "height width channels"]:
    return np.asarray((np.clip(values, 0, 1) * 255).round(), dtype=np.uint8)


class _Discs(NamedTuple):
    """Discs as they appear on the picture, sorted from far to near."""

    rows: Int[np.ndarray, " discs"]
    columns: Int[np.ndarray, " discs"]
    depth: Float[np.ndarray, " discs"]
    radius: Float[np.ndarray, " discs"]
    """Pixels, along the long axis of the ellipse."""
    across: Float[np.ndarray, "discs 2"]
    """Unit vector (x, y) of the short axis; zero for a circle."""
    facing: Float[np.ndarray, " discs"]
    """Short by long axis: the cosine between normal and viewing ray."""


def _splat(
    discs: _Discs, size: tuple[int, int]
) -> tuple[Float[np.ndarray, "height width"], Int[np.ndarray, "height width"]]:
    """Draw discs: the depth at every pixel (inf for none) and which disc won it (-1)."""
    height, width = size
    zbuffer = np.full(height * width, np.inf)
    winner = np.full(height * width, -1, dtype=np.int64)
    reach = int(np.ceil(discs.radius.max())) if len(discs.radius) else 0
    # 1 / ratio^2 - 1, by how much an offset along the short axis counts more; the ellipse keeps some width.
    flatness = 1 / np.maximum(discs.facing, MIN_FACING) ** 2 - 1
    by_size = np.argsort(discs.radius, kind="stable")
    sorted_radius = discs.radius[by_size]
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            # Only the discs that reach this far; sorted again, because the order of writing decides.
            chosen = np.sort(by_size[np.searchsorted(sorted_radius, np.hypot(dy, dx)) :])
            along = discs.across[chosen, 0] * dx + discs.across[chosen, 1] * dy
            inside = dx * dx + dy * dy + along**2 * flatness[chosen] <= discs.radius[chosen] ** 2
            y, x = discs.rows[chosen] + dy, discs.columns[chosen] + dx
            inside &= (y >= 0) & (y < height) & (x >= 0) & (x < width)
            chosen, pixel = chosen[inside], y[inside] * width + x[inside]
            nearer = discs.depth[chosen] < zbuffer[pixel]
            zbuffer[pixel[nearer]] = discs.depth[chosen[nearer]]
            winner[pixel[nearer]] = chosen[nearer]
    return zbuffer.reshape(size), winner.reshape(size)


def _dome_shade(zbuffer: Float[np.ndarray, "height width"], step: int, strength: float) -> np.ndarray:
    """Eye-dome lighting (Boucheny 2009): darken by how much nearer the neighbours are, in log depth."""
    logz = np.where(np.isfinite(zbuffer), np.log2(np.where(np.isfinite(zbuffer), zbuffer, 1.0)), np.inf)
    here = np.where(np.isfinite(logz), logz, 0.0)
    padded = np.pad(logz, step, mode="edge")
    height, width = zbuffer.shape
    total = np.zeros_like(here)
    for dy in (0, step, 2 * step):
        for dx in (0, step, 2 * step):
            total += np.clip(here - padded[dy : dy + height, dx : dx + width], 0, 0.6)
    return np.asarray(np.exp(-strength * total / 8))
