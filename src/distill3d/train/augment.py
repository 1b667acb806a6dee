"""Changes to a sample under which photos and labels still belong together. Pure functions of a batch of 1 or more."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.geometry.cameras import crop_intrinsics
from distill3d.types import Prediction, Views, concatenate

Labelled = tuple[Views, Prediction, Bool[Tensor, "batch views height width"]]
"""Photos, labels, and where these are to be believed."""
_PHOTO_MAPS = ("depth", "valid")
_LABEL_MAPS = (
    "depth",
    "valid",
    "confidence_world",
    "confidence_camera",
    "confidence_depth",
    "confidence_descriptors",
    "pointmap_world",
    "pointmap_camera",
    "normal",
    "descriptors",
)
_DIRECTED = ("pointmap_world", "pointmap_camera", "normal")


def mirror(views: Views, target: Prediction, valid: Tensor) -> Labelled:
    """The scene as a mirror shows it: left and right of the photos exchanged, and with them those of the whole world.

    With M = diag(-1, 1, 1) points become M p, poses M T M (rotations again), and a pinhole's centre cx becomes
    width - 1 - cx. All views of a sample must be mirrored together: they share one world.
    """
    width = views.images.shape[-1]
    images = views.images.flip(-1)
    photo = {name: value.flip(-1) for name in _PHOTO_MAPS if (value := getattr(views, name)) is not None}
    labels: dict[str, Tensor] = {}
    for name in _LABEL_MAPS:
        value = getattr(target, name)
        if value is not None:
            labels[name] = value.flip(3)
            if name in _DIRECTED:
                labels[name][..., 0].neg_()
    return (
        replace(views, images=images, **photo, **_mirrored_cameras(views, width)),
        replace(target, **labels, **_mirrored_cameras(target, width)),
        valid.flip(-1),
    )


def _mirrored_cameras(record: Views | Prediction, width: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    if record.world_from_camera is not None:
        signs = record.world_from_camera.new_tensor([-1, 1, 1, 1])
        found["world_from_camera"] = record.world_from_camera * signs * signs[:, None]
    if record.intrinsics is not None:
        mirrored = record.intrinsics.clone()
        mirrored[..., 0, 1] = -mirrored[..., 0, 1]  # skew
        mirrored[..., 0, 2] = width - 1 - mirrored[..., 0, 2]
        found["intrinsics"] = mirrored
    return found


def draw_window(
    size: tuple[int, int],
    *,
    share: float,
    aspect: tuple[float, float] | None,
    multiple: int,
    generator: torch.Generator,
) -> tuple[int, int]:
    """Height and width of a window: at least `share` of the area, in an aspect (width / height) of the range.

    Both are multiples of `multiple` where the photo is that large. A window of another aspect than the photo's can only
    be as large as the photo lets it be.
    """
    height, width = size
    draws = torch.rand(2, generator=generator, dtype=torch.float64)
    area = height * width * (share + (1 - share) * float(draws[0]))
    ratio = width / height
    if aspect is not None:
        low, high = map(math.log, aspect)
        ratio = math.exp(low + (high - low) * float(draws[1]))
    wide = math.sqrt(area * ratio)
    fit = min(1.0, width / wide, height * ratio / wide)
    return _whole(wide / ratio * fit, height, multiple), _whole(wide * fit, width, multiple)


def _whole(length: float, most: int, multiple: int) -> int:
    largest = most - most % multiple
    return most if largest == 0 else min(largest, max(multiple, round(length / multiple) * multiple))


def crop(
    views: Views, target: Prediction, valid: Tensor, size: tuple[int, int], corners: Sequence[tuple[int, int]]
) -> Labelled:
    """A window of each view. Points stay where they are; pixels move, and with them the centres of the cameras.

    Args:
        views: the photos.
        target: their labels.
        valid: where these are to be believed.
        size: height and width of every window.
        corners: row and column of each view's top left pixel.
    """

    def cut(maps: Tensor, axis: int) -> Tensor:
        """Rows are the given axis, columns the next; views are the second."""
        windows = [
            maps[:, view : view + 1].narrow(axis, row, size[0]).narrow(axis + 1, column, size[1])
            for view, (row, column) in enumerate(corners)
        ]
        return concatenate(windows, dim=1)

    def moved(intrinsics: Float[Tensor, "batch views 3 3"] | None) -> Float[Tensor, "batch views 3 3"] | None:
        if intrinsics is None:
            return None
        cameras = [crop_intrinsics(intrinsics[:, view], *corner) for view, corner in enumerate(corners)]
        return torch.stack(cameras, dim=1)

    photo = {name: cut(value, 2) for name in _PHOTO_MAPS if (value := getattr(views, name)) is not None}
    labels = {name: cut(value, 2) for name in _LABEL_MAPS if (value := getattr(target, name)) is not None}
    return (
        replace(views, images=cut(views.images, 3), intrinsics=moved(views.intrinsics), **photo),
        replace(target, intrinsics=moved(target.intrinsics), **labels),
        cut(valid, 2),
    )
