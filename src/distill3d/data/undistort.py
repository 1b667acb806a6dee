"""Taking the lens out of pictures and depth: a step of its own, whose result is a folder of annotated scenes.

A pinhole with the principal point of the lens and the longest field of view that every pixel of the lens can fill looks
at the scene from the same place; pictures are interpolated, depth and masks take the nearest pixel. Planar z-depth does
not change when a ray is looked up elsewhere in the picture.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from distill3d.data.datasets.annotated import SCENE_FILE, write_annotated_scene
from distill3d.data.decode import to_unit_range
from distill3d.data.frames import read_depth, read_mask, read_picture
from distill3d.data.rows import Distortion, ManifestRow, Skipped
from distill3d.data.table import Manifest
from distill3d.data.video import VideoPool
from distill3d.errors import DataError
from distill3d.files import PathLike
from distill3d.geometry.cameras import camera_rays
from distill3d.geometry.lenses import distort
from distill3d.progress import track

logger = logging.getLogger(__name__)

Size = tuple[int, int]


def undistort_manifest(manifest: Manifest, out: PathLike) -> tuple[Skipped, ...]:
    """Write every scene with known intrinsics as pinhole pictures below `out`, one annotated scene folder each.

    Scenes that are there already are left as they are, so that a run that was stopped goes on where it was. Depth gets
    the size of the picture. Pixels that a mask forbids lose their depth.

    Returns:
        Frames that were left out, and why.

    Raises:
        DataError: no frame has intrinsics.
        OutputError: the folder cannot be written to.
    """
    out = Path(out)
    skipped: list[Skipped] = []
    written = 0
    with VideoPool() as videos:
        for scene in track(manifest.scenes(), "undistorting", unit="scenes"):
            rows = [row for row in manifest.rows(scene) if row.intrinsics is not None]
            folder = out / scene
            written += bool(rows)
            if rows and not (folder / SCENE_FILE).is_file():
                _write_scene(rows, manifest.root, folder, videos, skipped)
    if not written:
        raise DataError("No frame of this manifest has intrinsics, which undistorting needs.")
    return tuple(skipped)


def pinhole_for(
    intrinsics: Float[torch.Tensor, "3 3"], distortion: Distortion, size: Size
) -> Float[torch.Tensor, "3 3"]:
    """The pinhole that shows as much as every pixel can be filled with: the focal lengths of the lens times one factor.

    Found by halving between 1/8 and 8 times the focal lengths of the lens.
    """
    height, width = size
    low, high = 0.125, 8.0
    for _ in range(30):
        factor = (low * high) ** 0.5
        x, y = lens_pixels(_zoomed(intrinsics, factor), intrinsics, distortion, size)
        rim = torch.ones(size, dtype=torch.bool)
        rim[1:-1, 1:-1] = False
        fits = ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))[rim].all()
        low, high = (low, factor) if fits else (factor, high)
    return _zoomed(intrinsics, high)


def lens_pixels(
    pinhole: Float[torch.Tensor, "3 3"],
    intrinsics: Float[torch.Tensor, "3 3"],
    distortion: Distortion,
    size: Size,
) -> tuple[Float[torch.Tensor, "height width"], Float[torch.Tensor, "height width"]]:
    """Where in the picture of the lens (column, row) each pixel of a pinhole of the same place and direction lies."""
    flat = camera_rays(pinhole, *size)[..., :2]
    bent = distort(distortion.model, distortion.params, flat)
    column = intrinsics[0, 0] * bent[..., 0] + intrinsics[0, 1] * bent[..., 1] + intrinsics[0, 2]
    return column, intrinsics[1, 1] * bent[..., 1] + intrinsics[1, 2]


def _zoomed(intrinsics: Float[torch.Tensor, "3 3"], factor: float) -> Float[torch.Tensor, "3 3"]:
    zoomed = intrinsics.clone()
    zoomed[:2, :2] *= factor
    return zoomed


def _write_scene(rows: list[ManifestRow], root: Path, folder: Path, videos: VideoPool, skipped: list[Skipped]) -> None:
    images, depths, cameras, kept = [], [], [], []
    lens, pinhole, where = None, torch.eye(3), None
    for row in rows:
        intrinsics = torch.tensor(row.intrinsics, dtype=torch.float64)
        size = (row.height, row.width)
        try:
            picture, depth, mask = read_picture(row, root, videos=videos), read_depth(row, root), read_mask(row, root)
        except DataError as error:
            skipped.append(Skipped(row.image.path, str(error)))
            continue
        if row.distortion is not None:
            if lens != (row.intrinsics, row.distortion, size):
                lens = (row.intrinsics, row.distortion, size)
                pinhole = pinhole_for(intrinsics, row.distortion, size)
                where = lens_pixels(pinhole, intrinsics, row.distortion, size)
            assert where is not None
            picture = _looked_up(picture, where)
            depth = None if depth is None else _nearest(depth, where, size)
            mask = None if mask is None else _nearest(mask, where, size)
        if mask is not None:
            depth = None if depth is None else np.where(mask, depth, 0)
        images.append(to_unit_range(picture))
        depths.append(depth)
        cameras.append(pinhole if row.distortion is not None else intrinsics)
        kept.append(row)
    if not kept:
        return
    if len({image.shape for image in images}) > 1:
        skipped.append(Skipped(kept[0].scene, "its pictures have several sizes, expected one for all of a scene"))
        return
    poses = [row.world_from_camera for row in kept]
    write_annotated_scene(
        folder,
        torch.stack(images),
        intrinsics=torch.stack(cameras),
        world_from_camera=torch.tensor(poses, dtype=torch.float64) if all(poses) else None,
        depth=_stacked(depths),
        split=[row.split for row in kept],
        is_metric=all(row.is_metric for row in kept),
        licence=kept[0].licence,
        info={"undistorted_from": [row.image.path for row in kept]},
    )


def _stacked(depths: list[np.ndarray | None]) -> Float[torch.Tensor, "frames height width"] | None:
    known = [depth for depth in depths if depth is not None]
    if len(known) < len(depths) or len({depth.shape for depth in known}) > 1:
        return None
    return torch.from_numpy(np.stack(known).astype(np.float32))


def _looked_up(picture: np.ndarray, where: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
    import cv2

    column, row = (axis.float().numpy() for axis in where)
    return np.asarray(cv2.remap(picture, column, row, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE))


def _nearest(
    values: Float[np.ndarray, "height width"] | Bool[np.ndarray, "height width"],
    where: tuple[torch.Tensor, torch.Tensor],
    size: Size,
) -> np.ndarray:
    """The value at each place; the map may have another size than the picture that the places belong to."""
    scale = values.shape[0] / size[0], values.shape[1] / size[1]
    column = ((where[0].numpy() + 0.5) * scale[1]).astype(np.int64).clip(0, values.shape[1] - 1)
    row = ((where[1].numpy() + 0.5) * scale[0]).astype(np.int64).clip(0, values.shape[0] - 1)
    return np.asarray(values[row, column])
