"""View groups of a manifest as `Views`: photos, depth and cameras on one canvas."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.datasets.annotated import read_depth
from distill3d.data.decode import photo_size, read_photo, resize_pixels, to_unit_range
from distill3d.data.fit import ImageFit, Size, canvas_size
from distill3d.data.placement import Placement, find_placement, place_depth, place_image
from distill3d.data.rows import ManifestRow
from distill3d.data.sampling import ViewGroup
from distill3d.data.table import Manifest
from distill3d.data.video import VideoPool
from distill3d.errors import DataError
from distill3d.types import Views


def manifest_canvas(manifest: Manifest, fit: ImageFit, split: str | None = None) -> Size:
    """The canvas that all groups of a manifest (of a split) share: (height, width).

    Raises:
        DataError: there are no frames.
    """
    heights, widths, splits = (manifest.table[name].to_pylist() for name in ("height", "width", "split"))
    return canvas_size(
        [
            (height, width)
            for height, width, of in zip(heights, widths, splits, strict=True)
            if split is None or of == split
        ],
        fit,
    )


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
        Batch of 1, float32. Intrinsics, poses and depth are there if every frame has them; `valid` is False on padding;
        depth is 0 where unknown.

    Raises:
        DataError: a file is missing, damaged, or of another size than the manifest says; the message names it.
    """
    rows = [manifest.row(group.scene, frame) for frame in group.frames]
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
        valid=torch.stack([place.valid() for place in places])[None],
        is_metric=torch.tensor([all(row.is_metric for row in rows)]),
    )


def _read_photos(
    manifest: Manifest, rows: list[ManifestRow], places: list[Placement], videos: VideoPool | None
) -> list[Float[Tensor, "3 height width"]]:
    images: dict[int, Float[Tensor, "3 height width"]] = {}
    pool = videos or VideoPool()
    # Frames of a video are read in ascending order, whatever the order of the views: going back starts it again.
    order = sorted(range(len(rows)), key=lambda view: (rows[view].image, rows[view].video_frame or 0))
    try:
        for view in order:
            row, place = rows[view], places[view]
            path = _existing(manifest, row.image)
            if row.video_frame is None:
                _check_size(photo_size(path, upright=row.is_upright), row, path)
                pixels = read_photo(path, place.resized, upright=row.is_upright)
            else:
                frame = pool.read(path, row.video_frame)
                _check_size(frame.shape[:2], row, path)
                pixels = resize_pixels(frame, place.resized)
            images[view] = to_unit_range(place_image(pixels, place))
    finally:
        if videos is None:
            pool.close()
    return [images[view] for view in range(len(rows))]


def _check_size(size: tuple[int, ...], row: ManifestRow, path: Path) -> None:
    """A photo that was exchanged for one of another shape would be squeezed into the place of the old one."""
    if size != (row.height, row.width):
        raise DataError(
            f"{path} is {size[1]}x{size[0]}, the manifest says {row.width}x{row.height}. Build the manifest again."
        )


def group_intrinsics(rows: Sequence[ManifestRow], places: Sequence[Placement]) -> Float[Tensor, "1 views 3 3"] | None:
    """Intrinsics of frames in pixels of their canvas, if all of them have some."""
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
        path = _existing(manifest, row.depth or "")
        depth = read_depth(path, row.depth_unit)
        try:
            maps.append(place_depth(depth, place))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    return torch.stack(maps)[None]


def _existing(manifest: Manifest, relative: str) -> Path:
    path = manifest.path(relative)
    if path.is_file():
        return path
    if not manifest.root.is_dir():
        raise DataError(
            f"The photos of this manifest are expected in {manifest.root}, which does not exist on this machine. "
            "Say where they are with --root."
        )
    raise DataError(f"{path} does not exist, but the manifest names it. Build the manifest again.")
