"""From maps to one list of coloured points: the part that PLY, GLB and the report share."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from distill3d.errors import OutputError
from distill3d.types import Reconstruction

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PointCloud:
    """Coloured points in the world frame of a reconstruction (OpenCV axes: x right, y down, z forward)."""

    points: Float[np.ndarray, "points 3"]
    """float32, scene units."""
    colors: UInt8[np.ndarray, "points 3"]
    """sRGB, as in the photos."""
    confidence: Float[np.ndarray, " points"]
    """As the model trained it; ones where the reconstruction has none."""
    view: Int[np.ndarray, " points"]
    """Index of the view that each point comes from."""
    normal: Float[np.ndarray, "points 3"]
    """Unit vectors out of the surface, towards the camera; (0, 0, 0) where the surface is unknown."""

    def __len__(self) -> int:
        return len(self.points)


def gather_cloud(reconstruction: Reconstruction, *, max_points: int | None = None, seed: int = 0) -> PointCloud:
    """Collect the kept, finite points of all views; above `max_points` an even random choice stands for all.

    The choice depends on `seed` and the number of points only, and keeps their order (view, row, column).

    Raises:
        OutputError: not one point is left, or the reconstruction has no world pointmap.
    """
    prediction = reconstruction.prediction
    if prediction.pointmap_world is None:
        raise OutputError("the reconstruction has no pointmap_world; expected one from infer.reconstruct")
    pointmap = prediction.pointmap_world[0].detach().float().cpu()
    keep = reconstruction.keep[0].cpu() & pointmap.isfinite().all(dim=-1)
    total, kept = keep.numel(), int(keep.sum())
    if kept == 0:
        raise OutputError(
            f"no point to write: 0 of {total} pixels are valid, finite and above the confidence percentile. "
            "Try a lower confidence percentile, or check that the photos overlap and the weights fit them."
        )
    # Indices into the masked pixels first, gathers after: a large scene is never copied whole.
    chosen = keep.flatten().nonzero().squeeze(1)  # (kept,)
    if max_points is not None and kept > max_points:
        if max_points < 1:
            raise OutputError(f"max_points is {max_points}; expected at least 1, or None for all {kept} points")
        picks = np.sort(np.random.default_rng(seed).choice(kept, size=max_points, replace=False))
        chosen = chosen[torch.from_numpy(picks)]
        logger.info("%d of %d points are written (max_points)", max_points, kept)
    images = reconstruction.views.images[0].detach().float().cpu()
    _, _, height, width = images.shape
    view = chosen // (height * width)
    pixel = chosen % (height * width)
    colors = images.flatten(2)[view, :, pixel]  # (points, 3)
    confidence = prediction.confidence_world
    weights = torch.ones(len(chosen)) if confidence is None else confidence[0].detach().float().cpu().flatten()[chosen]
    return PointCloud(
        points=pointmap.reshape(-1, 3)[chosen].numpy(),
        colors=(colors.clamp(0, 1) * 255).round().to(torch.uint8).numpy(),
        confidence=weights.numpy(),
        view=view.numpy(),
        normal=_normals(pointmap, keep, chosen).numpy(),
    )


def _normals(
    pointmap: Float[Tensor, "views height width 3"],
    usable: Bool[Tensor, "views height width"],
    chosen: Int[Tensor, " points"],
    reach: int = 2,
) -> Float[Tensor, "points 3"]:
    """Find normals at the chosen pixels from their neighbours `reach` pixels away, one-sided where one is unusable.

    In a pointmap the tangents along x (right) and y (down) span the surface, and their cross product points away from
    the camera at every visible surface; so its negative faces the camera and no camera needs to be known.
    """
    _, height, width, _ = pointmap.shape
    flat, known = pointmap.reshape(-1, 3), usable.flatten()
    row, column = chosen // width % height, chosen % width
    here = flat[chosen]

    def neighbour(down: int, right: int) -> Float[Tensor, "points 3"]:
        inside = (row + down).clamp(0, height - 1) - row, (column + right).clamp(0, width - 1) - column
        index = chosen + inside[0] * width + inside[1]
        return torch.where(known[index][:, None], flat[index], here)

    along_x = neighbour(0, reach) - neighbour(0, -reach)
    along_y = neighbour(reach, 0) - neighbour(-reach, 0)
    return torch.nn.functional.normalize(-torch.linalg.cross(along_x, along_y), dim=-1, eps=1e-20)
