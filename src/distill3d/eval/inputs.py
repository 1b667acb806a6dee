"""Photos at the size that a network is shown: the longer side as asked, the shorter to the nearest whole patch."""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.geometry.cameras import crop_intrinsics, resize_intrinsics
from distill3d.types import Views

Size = tuple[int, int]
PI3_WIDTH, PI3_PATCH = 518, 14


def input_size(size: Size, long_side: int, multiple: int) -> Size:
    """Give (height, width) in whole patches: the longer side at most `long_side`, the shorter one rounded.

    The aspect changes by half a patch at most, which is what the protocols of Pi3 and VGGT do; nothing is padded.
    """
    longer = max(size)
    target = max(multiple, long_side // multiple * multiple)
    sides = [
        target if side == longer else max(multiple, round(side * target / longer / multiple) * multiple)
        for side in size
    ]
    return sides[0], sides[1]


def resize_like_pi3(
    intrinsics: Float[np.ndarray, "3 3"], size: Size, *, clean: bool = False
) -> tuple[Size, Float[np.ndarray, "3 3"]]:
    """Follow a photo to 518 pixels of width and whole patches of 14 (Pi3's multi-view benchmarks).

    The reference scales both focal lengths and the principal point, about pixel centres, by the larger of the two
    ratios, although they differ; `clean` scales each axis by its own.

    Args:
        intrinsics: in pixels of the photo.
        size: (height, width) of the photo.
        clean: mend the quirk.

    Returns:
        The new (height, width), and the intrinsics there.
    """
    height, width = size
    new = (round(height * PI3_WIDTH / width / PI3_PATCH) * PI3_PATCH, PI3_WIDTH)
    matrix = torch.from_numpy(intrinsics.astype(np.float64))
    if clean:
        return new, resize_intrinsics(matrix, size, new).numpy()
    ratio = max(new[1] / width, new[0] / height)
    moved = matrix.clone()
    moved[:2] *= ratio
    moved[:2, 2] = (matrix[:2, 2] + 0.5) * ratio - 0.5
    return new, moved.numpy()


def resize_images(
    images: Float[Tensor, "batch views 3 height width"], size: Size
) -> Float[Tensor, "batch views 3 new_height new_width"]:
    """Bring photos to (height, width), bicubic with antialiasing, within [0, 1]."""
    if tuple(images.shape[-2:]) == size:
        return images
    flat = torch.nn.functional.interpolate(images.flatten(0, 1), size=size, mode="bicubic", antialias=True)
    return flat.clamp(0, 1).view(*images.shape[:3], *size)


def resize_views(views: Views, size: Size) -> Views:
    """Bring photos with their depth (to the nearest) and cameras to (height, width)."""
    old = (views.images.shape[-2], views.images.shape[-1])
    depth, intrinsics = views.depth, views.intrinsics
    return dataclasses.replace(
        views,
        images=resize_images(views.images, size),
        depth=None if depth is None else torch.nn.functional.interpolate(depth, size=size, mode="nearest-exact"),
        intrinsics=None if intrinsics is None else resize_intrinsics(intrinsics, old, size),
        valid=None
        if views.valid is None
        else torch.nn.functional.interpolate(views.valid.float(), size=size, mode="nearest-exact") > 0,
    )


def crop_around_principal_point(views: Views) -> Views:
    """Cut the largest picture whose middle is the principal point, to whole pixels, as the DUSt3R family does.

    All views are cut alike, around the first one's; without intrinsics nothing is cut.
    """
    if views.intrinsics is None:
        return views
    height, width = views.images.shape[-2:]
    x, y = (views.intrinsics[0, 0, :2, 2] + 0.5).tolist()
    half_width, half_height = round(min(x, width - x)), round(min(y, height - y))
    left, top = max(0, round(x) - half_width), max(0, round(y) - half_height)
    across, down = slice(left, left + 2 * half_width), slice(top, top + 2 * half_height)
    return dataclasses.replace(
        views,
        images=views.images[..., down, across],
        depth=None if views.depth is None else views.depth[..., down, across],
        valid=None if views.valid is None else views.valid[..., down, across],
        intrinsics=crop_intrinsics(views.intrinsics, top, left),
    )
