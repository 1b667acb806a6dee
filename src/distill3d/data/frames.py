"""One frame of a manifest as arrays: its picture, its depth, its masks, decoded when asked for and not before."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from distill3d.data.codecs import decode
from distill3d.data.decode import photo_size, read_photo, resize_pixels
from distill3d.data.fit import Size
from distill3d.data.refs import Ref
from distill3d.data.rows import ManifestRow
from distill3d.data.video import VideoPool
from distill3d.errors import DataError
from distill3d.geometry.cameras import camera_rays, resize_intrinsics


def read_picture(
    row: ManifestRow, root: Path, size: Size | None = None, videos: VideoPool | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture of a frame, RGB.

    Args:
        row: the frame.
        root: of the manifest.
        size: (height, width) to resize to, antialiased; as stored if `None`.
        videos: keeps videos open from one call to the next.

    Raises:
        DataError: it is missing, damaged, or of another size than the row says; the message names it.
    """
    where = existing(row.image, root)
    if row.image.store == "video":
        pixels = _video_frame(where, row.image.offset, videos)
    elif row.image.codec == "image":
        span = row.image.within(root)
        _check_size(photo_size(span, upright=row.is_upright), row, where)
        return read_photo(span, size, upright=row.is_upright)
    else:
        pixels = decode("IMAGE_CODECS", row.image.codec, row.image.within(root))
    _check_size(pixels.shape[:2], row, where)
    return pixels if size is None else resize_pixels(pixels, size)


def read_depth(row: ManifestRow, root: Path) -> Float[np.ndarray, "depth_height depth_width"] | None:
    """Planar z-depth of a frame in scene units, float32, 0 where unknown or not to be trusted; `None` if it has none.

    It may have fewer pixels than the picture. Distances along the rays are turned into z-depth here.

    Raises:
        DataError: a file is missing or damaged, or a distance comes without the camera that is needed to convert it.
    """
    if row.depth is None:
        return None
    existing(row.depth, root)
    depth: np.ndarray = decode("DEPTH_CODECS", row.depth.codec, row.depth.within(root))
    if row.depth_kind == "distance":
        depth = _z_from_distance(depth, row)
    if row.depth_mask is not None:
        existing(row.depth_mask, root)
        trusted = decode("MASK_CODECS", row.depth_mask.codec, row.depth_mask.within(root))
        depth = np.where(_nearest_size(trusted, depth.shape), depth, np.float32(0))
    return depth


def read_mask(row: ManifestRow, root: Path) -> Bool[np.ndarray, "height width"] | None:
    """Where the picture may be used, in pixels of the picture; `None` if everywhere.

    Raises:
        DataError: the file is missing or damaged.
    """
    return _read_mask(row.mask, row, root)


def read_sky(row: ManifestRow, root: Path) -> Bool[np.ndarray, "height width"] | None:
    """Where the picture shows something infinitely far away, in pixels of the picture; `None` if that is not known.

    Raises:
        DataError: the file is missing or damaged.
    """
    return _read_mask(row.sky, row, root)


def existing(ref: Ref, root: Path) -> Path:
    """The file of a ref, which is there.

    Raises:
        DataError: it is not, or nothing of the manifest is; the message says which.
    """
    path = root / ref.path
    if path.is_file():
        return path
    if not root.is_dir():
        raise DataError(
            f"The photos of this manifest are expected in {root}, which does not exist on this machine. "
            "Say where they are with --root."
        )
    raise DataError(f"{path} does not exist, but the manifest names it. Build the manifest again.")


def _read_mask(ref: Ref | None, row: ManifestRow, root: Path) -> Bool[np.ndarray, "height width"] | None:
    if ref is None:
        return None
    existing(ref, root)
    return _nearest_size(decode("MASK_CODECS", ref.codec, ref.within(root)), (row.height, row.width))


def _video_frame(path: Path, number: int, videos: VideoPool | None) -> UInt8[np.ndarray, "height width 3"]:
    if videos is not None:
        return videos.read(path, number)
    with VideoPool(1) as pool:
        return pool.read(path, number)


def _check_size(size: tuple[int, ...], row: ManifestRow, path: Path) -> None:
    """A photo that was exchanged for one of another shape would be squeezed into the place of the old one."""
    if size != (row.height, row.width):
        raise DataError(
            f"{path} is {size[1]}x{size[0]}, the manifest says {row.width}x{row.height}. Build the manifest again."
        )


def _z_from_distance(distance: np.ndarray, row: ManifestRow) -> np.ndarray:
    if row.intrinsics is None or row.distortion is not None:
        what = "has no intrinsics" if row.intrinsics is None else f"has a lens of the model {row.distortion.model}"  # type: ignore[union-attr]
        raise DataError(
            f"Frame {row.frame} of {row.scene} comes with distances along the rays and {what}; expected a pinhole, "
            "which z-depth is computed with."
        )
    intrinsics = torch.tensor(row.intrinsics, dtype=torch.float64)
    scaled = resize_intrinsics(intrinsics, (row.height, row.width), (distance.shape[0], distance.shape[1]))
    length = camera_rays(scaled, *distance.shape).norm(dim=-1).numpy()
    return np.asarray(distance / length, dtype=np.float32)


def _nearest_size(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST)) > 0
