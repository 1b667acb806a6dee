"""Frames of a data set as views of one size, and predictions brought to the size of the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from distill3d.data.frames import read_depth, read_picture
from distill3d.data.rows import ManifestRow
from distill3d.errors import GeometryError
from distill3d.eval.inputs import Size
from distill3d.eval.metrics.key_view import resize_nearest
from distill3d.geometry.cameras import resize_intrinsics
from distill3d.infer.cameras import complete
from distill3d.types import Prediction, Views

Resize = Literal["nearest", "bilinear", "bicubic"]
"""nearest, centre to centre; bilinear with antialiasing; bicubic without."""


def load_views(rows: Sequence[ManifestRow], root: Path, size: Size | None = None) -> Views:
    """Read frames at (height, width): pictures antialiased, depth to the nearest, intrinsics along.

    Args:
        rows: frames of one scene.
        root: of the data set.
        size: None takes the size of the first frame.

    Returns:
        Batch of 1; intrinsics, poses (in the world of the scene) and depth are there if every frame has them.

    Raises:
        DataError: a file is missing or damaged.
    """
    height, width = size or (rows[0].height, rows[0].width)
    pictures = [read_picture(row, root, (height, width)) for row in rows]
    cameras = [row.intrinsics for row in rows if row.intrinsics is not None]
    poses = [row.world_from_camera for row in rows if row.world_from_camera is not None]
    depths = [read_depth(row, root) for row in rows]
    known = [resize_nearest(depth, (height, width)) for depth in depths if depth is not None]
    intrinsics = None
    if len(cameras) == len(rows):
        moved = [
            resize_intrinsics(torch.tensor(camera, dtype=torch.float64), (row.height, row.width), (height, width))
            for row, camera in zip(rows, cameras, strict=True)
        ]
        intrinsics = torch.stack(moved)[None].float()
    return Views(
        images=torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)[None].float() / 255,
        intrinsics=intrinsics,
        world_from_camera=torch.tensor(poses, dtype=torch.float64)[None].float() if len(poses) == len(rows) else None,
        depth=torch.from_numpy(np.stack(known).astype(np.float32))[None] if len(known) == len(rows) else None,
        is_metric=torch.tensor([all(row.is_metric for row in rows)]),
    )


def finished(prediction: Prediction) -> Prediction:
    """Everything that follows from what a network said: poses, cameras, both maps. The rest stays absent."""
    try:
        return complete(prediction)
    except GeometryError:
        return prediction


def depth_maps(prediction: Prediction, size: Size, how: Resize) -> Float[np.ndarray, "views height width"] | None:
    """z-depth of every view at (height, width), float64: the local map's, the depth head's, else what follows."""
    if prediction.pointmap_camera is None and prediction.depth is not None:
        return resize_maps(prediction.depth[0][..., None], size, how)[..., 0].double().numpy()
    local = local_maps(prediction, size, how)
    return None if local is None else np.asarray(local[..., 2])


def local_maps(prediction: Prediction, size: Size, how: Resize) -> Float[np.ndarray, "views height width 3"] | None:
    """Points of every view in its own camera, float64: the network's, else what follows from the rest."""
    local = prediction.pointmap_camera
    local = finished(prediction).pointmap_camera if local is None else local
    return None if local is None else resize_maps(local[0], size, how).double().numpy()


def world_maps(prediction: Prediction, size: Size, how: Resize) -> Float[np.ndarray, "views height width 3"] | None:
    """Points of every view in the common frame, float64."""
    world = prediction.pointmap_world
    return None if world is None else resize_maps(world[0], size, how).double().numpy()


def confidence_maps(prediction: Prediction, size: Size) -> Float[np.ndarray, "views height width"] | None:
    """Confidence of the local map, else of the depth, else of the common map; to the nearest."""
    for confidence in (prediction.confidence_camera, prediction.confidence_depth, prediction.confidence_world):
        if confidence is not None:
            return resize_maps(confidence[0][..., None], size, "nearest")[..., 0].double().numpy()
    return None


def resize_maps(
    maps: Float[Tensor, "views height width channels"], size: Size, how: Resize
) -> Float[Tensor, "views new_height new_width channels"]:
    """Bring maps to (height, width)."""
    maps = maps.detach().float().cpu()
    if tuple(maps.shape[1:3]) == size:
        return maps
    planes = maps.permute(0, 3, 1, 2)
    if how == "nearest":
        planes = functional.interpolate(planes, size=size, mode="nearest-exact")
    else:
        planes = functional.interpolate(planes, size=size, mode=how, antialias=how == "bilinear", align_corners=False)
    return planes.permute(0, 2, 3, 1)
