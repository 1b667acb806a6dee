"""View groups of a manifest as `Views`: photos, depth and cameras on one canvas."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.data.decode import to_unit_range
from distill3d.data.fit import ImageFit, Size, canvas_size
from distill3d.data.frames import read_depth, read_mask, read_picture
from distill3d.data.images import LoadedViews, too_few, unique_names
from distill3d.data.placement import Placement, find_placement, place_depth, place_image
from distill3d.data.rows import ManifestRow, Skipped
from distill3d.data.sampling import ViewGroup
from distill3d.data.table import Manifest
from distill3d.data.video import VideoPool
from distill3d.errors import DataError
from distill3d.progress import track
from distill3d.types import Views

logger = logging.getLogger(__name__)


def manifest_canvas(manifest: Manifest, fit: ImageFit, split: str | None = None) -> Size:
    """The canvas that all groups of a manifest (of a split) share: (height, width).

    Raises:
        DataError: there are no frames.
    """
    table = manifest.table.select(["height", "width", "split"])
    if split is not None:
        table = table.filter(pc.equal(table["split"].cast(pa.string()), split))
    counted = table.group_by(["height", "width"], use_threads=False).aggregate([([], "count_all")])
    return canvas_size({(row["height"], row["width"]): row["count_all"] for row in counted.to_pylist()}, fit)


def load_group(
    manifest: Manifest,
    group: ViewGroup,
    fit: ImageFit,
    *,
    canvas: Size | None = None,
    videos: VideoPool | None = None,
    world: Literal["view0", "scene"] = "view0",
) -> Views:
    """Read the photos of a group, and whatever is known about all of them, onto one canvas.

    Args:
        manifest: the group was chosen from it.
        group: scene and frames.
        fit: how photos are laid out.
        canvas: (height, width), so that all groups of a cache share one; found from these photos if `None`.
        videos: pass one pool to all calls when many groups come from videos.
        world: frame of the poses: the camera of the first view, or the world of the scene.

    Returns:
        Batch of 1, float32. Intrinsics, poses and depth are there if every frame has them; `valid` is False on padding
        and where a mask forbids it; depth is 0 where unknown.

    Raises:
        DataError: a file is missing, damaged, or of another size than the manifest says; the message names it.
    """
    rows = manifest.group(group.scene, group.frames)
    if not rows:
        raise DataError(f"The view group of scene {group.scene} has no frames, expected at least one.")
    shared = canvas or canvas_size([(row.height, row.width) for row in rows], fit)
    places = [find_placement((row.height, row.width), fit, shared) for row in rows]
    photos = _read_photos(manifest, rows, places, videos)
    return Views(
        images=torch.stack(photos)[None],
        intrinsics=group_intrinsics(rows, places),
        world_from_camera=group_poses(rows, world),
        depth=_depth(manifest, rows, places),
        valid=torch.stack([_valid(manifest, row, place) for row, place in zip(rows, places, strict=True)])[None],
        is_metric=torch.tensor([all(row.is_metric for row in rows)]),
    )


def _read_photos(
    manifest: Manifest, rows: list[ManifestRow], places: list[Placement], videos: VideoPool | None
) -> list[Float[Tensor, "3 height width"]]:
    images: dict[int, Float[Tensor, "3 height width"]] = {}
    pool = videos or VideoPool()
    # Frames of a video are read in ascending order, whatever the order of the views: going back starts it again.
    order = sorted(range(len(rows)), key=lambda view: (rows[view].image.path, rows[view].image.offset))
    try:
        for view in order:
            pixels = read_picture(rows[view], manifest.root, places[view].resized, pool)
            images[view] = to_unit_range(place_image(pixels, places[view]))
    finally:
        if videos is None:
            pool.close()
    return [images[view] for view in range(len(rows))]


def load_rows(
    rows: Sequence[ManifestRow], root: Path, fit: ImageFit, *, at_least: int = 2, skipped: Sequence[Skipped] = ()
) -> LoadedViews:
    """Read frames onto one canvas, with the cameras that all of them have; one that cannot be read is left out.

    Args:
        rows: frames of one scene.
        root: what their paths start from.
        fit: how they are laid out.
        at_least: how many readable ones the caller needs.
        skipped: what was lost before, to be listed with what is lost here.

    Raises:
        DataError: too few are left; the message lists what was found and why it could not be used.
    """
    shared = canvas_size([(row.height, row.width) for row in rows], fit) if rows else (fit.multiple, fit.multiple)
    kept, places, images, lost = [], [], [], list(skipped)
    with VideoPool() as videos:
        for row in track(rows, "reading photos", unit="photos"):
            place = find_placement((row.height, row.width), fit, shared)
            try:
                images.append(to_unit_range(place_image(read_picture(row, root, place.resized, videos), place)))
            except DataError as error:
                lost.append(Skipped(str(root / row.image.path), str(error)))
            else:
                kept.append(row)
                places.append(place)
    if len(kept) < at_least:
        raise DataError(too_few(len(kept), len(rows), at_least, lost))
    views = Views(
        images=torch.stack(images)[None],
        intrinsics=group_intrinsics(kept, places),
        world_from_camera=group_poses(kept),
        valid=torch.stack([place.valid() for place in places])[None],
    )
    return LoadedViews(views, _names(kept), tuple(places), tuple(lost))


def _names(rows: Sequence[ManifestRow]) -> tuple[str, ...]:
    if all(row.image.store == "video" for row in rows):
        return tuple(f"frame_{row.image.offset:06d}" for row in rows)
    return unique_names([Path(row.image.path) for row in rows])


def group_intrinsics(rows: Sequence[ManifestRow], places: Sequence[Placement]) -> Float[Tensor, "1 views 3 3"] | None:
    """Intrinsics of frames in pixels of their canvas, if all of them have some and see through a pinhole."""
    distorted = [row.distortion.model for row in rows if row.distortion is not None]
    if distorted:
        logger.warning(
            "scene %s was taken through a lens of the model %s: its intrinsics are left aside, because networks see "
            "through a pinhole. Make undistorted pictures with: distill3d manifest undistort",
            rows[0].scene,
            distorted[0],
        )
        return None
    known = [row.intrinsics for row in rows if row.intrinsics is not None]
    if len(known) < len(rows):
        return None
    moved = [
        place.to_canvas(torch.tensor(matrix, dtype=torch.float64)) for place, matrix in zip(places, known, strict=True)
    ]
    return torch.stack(moved)[None].float()


def group_poses(rows: Sequence[ManifestRow], world: str = "view0") -> Float[Tensor, "1 views 4 4"] | None:
    """Poses of frames, if all of them have one; in the frame of the first ("view0") or of the scene."""
    known = [row.world_from_camera for row in rows if row.world_from_camera is not None]
    if len(known) < len(rows):
        return None
    poses = torch.tensor(known, dtype=torch.float64)
    if world == "view0":
        # A scene may lie kilometres from its origin: move it there first. View 0 becomes the identity to the last bit.
        poses[:, :3, 3] -= poses[0, :3, 3].clone()
        poses = torch.linalg.inv(poses[0]) @ poses
        poses[0] = torch.eye(4, dtype=torch.float64)
    return poses[None].float()


def _depth(
    manifest: Manifest, rows: list[ManifestRow], places: list[Placement]
) -> Float[Tensor, "1 views height width"] | None:
    if any(row.depth is None for row in rows):
        return None
    maps = []
    for row, place in zip(rows, places, strict=True):
        depth = read_depth(row, manifest.root)
        assert depth is not None
        try:
            maps.append(place_depth(depth, place))
        except DataError as error:
            raise DataError(f"{row.depth and manifest.path(row.depth.path)}: {error}") from error
    return torch.stack(maps)[None]


def _valid(manifest: Manifest, row: ManifestRow, place: Placement) -> Bool[Tensor, "height width"]:
    """True where the canvas shows a part of the photo that may be used."""
    mask = read_mask(row, manifest.root)
    return place.valid() if mask is None else place.valid() & (place_depth(mask.astype(np.float32), place) > 0)
