"""How MoGe prepares an evaluation photo: a centred pinhole of the set's size, as much of the view as fits into it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from distill3d.errors import DataError
from distill3d.eval.metrics.sample import nearest_valid_pixels

_BACKGROUND = {"undefined", "unannotated", "background", "sky"}
_MOST_SEGMENTS, _LEAST_PIXELS = 100, 1000
_FARTHEST = 1000.0
"""Times the first percentile of the depth: what is farther is taken for wrong."""
Matrix = Float[np.ndarray, "3 3"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A photo at the size of its set; the camera is centred, in units of width and height."""

    image: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]
    """NaN where unknown."""
    points: Float[np.ndarray, "height width 3"]
    focal: tuple[float, float]
    """Over the width and over the height."""
    segments: tuple[Bool[np.ndarray, "height width"], ...]


def prepare(
    image: UInt8[np.ndarray, "raw_height raw_width 3"],
    depth: Float[np.ndarray, "depth_height depth_width"],
    intrinsics: Matrix,
    size: tuple[int, int],
    labels: Int[np.ndarray, "label_height label_width"] | None = None,
    names: dict[str, int] | None = None,
) -> Prepared:
    """Bring a photo, its depth and its segments to (height, width).

    Args:
        image: as stored.
        depth: planar, 0 or not finite where unknown.
        intrinsics: over width and height, (0, 0) and (1, 1) at the image's corners.
        size: of the set.
        labels: ids of segments.
        names: name -> id; background is left out.
    """
    height, width = size
    rotation, view = _target_view(intrinsics, width / height)
    target = np.array([[1 / view[0], 0, 0.5], [0, 1 / view[1], 0.5], [0, 0, 1]])
    extent = (1 / intrinsics[0, 0], 1 / intrinsics[1, 1])
    # Shrink first, so that the warp neither skips pixels nor invents depths between them.
    between = (max(1, int(extent[1] / view[1] * height)), max(1, int(extent[0] / view[0] * width)))
    pixels = np.asarray(Image.fromarray(image).resize(between[::-1], Image.Resampling.LANCZOS))
    known, row, column = nearest_valid_pixels(np.isfinite(depth) & (depth > 0), between)
    near = np.where(known, depth[row, column], 1.0).astype(np.float64)
    distance = near * np.linalg.norm(_rays(intrinsics, between), axis=-1)

    rays = _rays(target, size)
    seen = rays @ rotation @ intrinsics.T  # rows of K R^-1 ray, for R^-1 = R^T
    place = seen[..., :2] / seen[..., 2:] * np.array([between[1], between[0]]) - 0.5
    import cv2  # slow to import

    across, down = (np.ascontiguousarray(place[..., axis], dtype=np.float32) for axis in (0, 1))
    warped = cv2.remap(pixels, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    columns, rows = np.rint(across).astype(np.int64), np.rint(down).astype(np.int64)
    inside = (columns >= 0) & (columns < between[1]) & (rows >= 0) & (rows < between[0])
    rows, columns = rows.clip(0, between[0] - 1), columns.clip(0, between[1] - 1)
    shown = np.where(inside & known[rows, columns], distance[rows, columns], np.nan) / np.linalg.norm(rays, axis=-1)
    valid = np.isfinite(shown)
    if valid.any():
        shown[valid & (np.nan_to_num(shown) > _FARTHEST * np.quantile(shown[valid], 0.01))] = np.nan
    segments: tuple[np.ndarray, ...] = ()
    if labels is not None and names is not None:
        resized = np.asarray(Image.fromarray(labels.astype(np.int32)).resize(between[::-1], Image.Resampling.NEAREST))
        segments = _segments(np.where(inside, resized[rows, columns], -1), names)
    return Prepared(
        image=np.asarray(warped, dtype=np.uint8),
        depth=shown,
        points=np.nan_to_num(shown)[..., None] * rays,
        focal=(1 / view[0], 1 / view[1]),
        segments=segments,
    )


def read_segments(path: Path) -> tuple[Int[np.ndarray, "height width"], dict[str, int]] | None:
    """Ids and names of `segmentation.png`; None where there is none.

    Raises:
        DataError: it is damaged, or names nothing.
    """
    if not path.is_file():
        return None
    try:
        with Image.open(path) as picture:
            names = {str(name): int(number) for name, number in json.loads(picture.text["labels"]).items()}  # type: ignore[attr-defined]
            return np.asarray(picture).astype(np.int64), names
    except (OSError, KeyError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is no picture of segments with their names ({error}).") from error


def _target_view(intrinsics: Matrix, aspect: float) -> tuple[Matrix, tuple[float, float]]:
    """Rotation that centres the view, and the horizontal and vertical extent at depth 1 that fits into it."""
    inverse = np.linalg.inv(intrinsics)
    middle = inverse @ np.array([0.5, 0.5, 1.0])
    rotation = _shortest_rotation(middle / np.linalg.norm(middle), np.array([0.0, 0.0, 1.0]))
    horizontal = min(1 / intrinsics[0, 0], 1 / intrinsics[1, 1] * aspect)
    corners = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 1.0]]) @ inverse.T @ rotation.T
    plane = corners[:, :2] / corners[:, 2:]
    vertical = horizontal / aspect
    for start, end in zip(plane, np.roll(plane, -1, axis=0), strict=True):
        edge = end - start
        for diagonal in (np.array([aspect, 1.0]), np.array([aspect, -1.0])):
            across = diagonal[0] * edge[1] - diagonal[1] * edge[0]
            if abs(across) < 1e-12:
                continue  # the edge runs along the diagonal
            hit = (start[0] * edge[1] - start[1] * edge[0]) / across * diagonal
            horizontal, vertical = min(horizontal, 2 * abs(hit[0])), min(vertical, 2 * abs(hit[1]))
    return rotation, (float(horizontal), float(vertical))


def _shortest_rotation(first: Float[np.ndarray, "3"], second: Float[np.ndarray, "3"]) -> Matrix:
    axis, cosine = np.cross(first, second), float(first @ second)
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation: Matrix = np.eye(3) + skew + skew @ skew / (1 + cosine)
    return rotation


def _rays(intrinsics: Matrix, size: tuple[int, int]) -> Float[np.ndarray, "height width 3"]:
    """Directions through the pixels' centres, of z = 1."""
    height, width = size
    u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(intrinsics).T


def _segments(labels: Int[np.ndarray, "height width"], names: dict[str, int]) -> tuple[np.ndarray, ...]:
    """The largest segments that are something."""
    sizes = [(int((labels == number).sum()), number) for name, number in names.items() if name not in _BACKGROUND]
    largest = sorted((entry for entry in sizes if entry[0] >= _LEAST_PIXELS), key=lambda entry: (-entry[0], entry[1]))
    return tuple(labels == number for _, number in largest[:_MOST_SEGMENTS])
