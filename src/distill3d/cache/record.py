"""From the records of a sample to the named arrays of each view, and back.

The ground-truth `depth` of the views is left with the data set it came from; everything else is kept.
"""

import dataclasses
import io
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from distill3d.cache.blob import Array
from distill3d.errors import CacheError
from distill3d.types import Prediction, Views

PREDICTION_FIELDS = tuple(item.name for item in dataclasses.fields(Prediction))
VIEW_FIELDS = ("intrinsics", "world_from_camera", "valid", "is_metric")
"""Fields of `Views` that stand beside the labels; the image has a blob of its own."""
LOCAL, WORLD, DEPTH = "prediction.pointmap_camera", "prediction.pointmap_world", "prediction.depth"
KEPT_WHOLE = ("intrinsics", "world_from_camera", "metric_scale")
"""Fields whose few numbers are kept as they came."""
PER_SAMPLE = ("metric_scale", "is_metric")
"""Fields that belong to the whole sample; `metric_scale` may also have a value for each view."""


def split_sample(key: str, views: Views, prediction: Prediction) -> list[dict[str, Array]]:
    """One mapping a view: `views.<field>` and `prediction.<field>` to its array; absent fields are left out.

    A value that belongs to the whole sample (`metric_scale`, `is_metric`) is repeated in every view.

    Raises:
        CacheError: more than one sample, or labels of another number or size of views than the images.
    """
    batch, num_views, _, height, width = views.images.shape
    if batch != 1:
        raise CacheError(f"sample {key}: a batch of {batch} samples; add them one at a time")
    named: dict[str, Tensor | None] = {f"views.{name}": getattr(views, name) for name in VIEW_FIELDS}
    named.update({f"prediction.{name}": getattr(prediction, name) for name in PREDICTION_FIELDS})
    arrays = {name: _to_array(value) for name, value in named.items() if value is not None}
    if not any(name.startswith("prediction.") for name in arrays):
        raise CacheError(f"sample {key}: the prediction is empty; nothing to keep")
    for name, array in arrays.items():
        field = name.split(".")[1]
        expected: tuple[int, ...] = (1, num_views, height, width)
        if field in (*PER_SAMPLE, "intrinsics", "world_from_camera"):
            expected = (1,) if field in PER_SAMPLE else (1, num_views)
        if array.shape[: len(expected)] != expected:
            found = "x".join(map(str, array.shape))
            wanted = "x".join(map(str, expected))
            raise CacheError(f"sample {key}: {name} has shape {found}, for these images it must begin with {wanted}")
    return [
        {name: np.asarray(array[0] if array.ndim == 1 else array[0, view]) for name, array in arrays.items()}
        for view in range(num_views)
    ]


def stack_views(parts: Iterable[Mapping[str, Array]], num_views: int) -> dict[str, Tensor]:
    """The arrays of the views, [1 views ...]. Each view is copied and let go before the next is asked for.

    A name that only some of the views have is left out. A map keeps the order in memory that it has in the first view.

    Raises:
        CacheError: maps of several sizes.
    """
    stacked: dict[str, Array] = {}
    for view, part in enumerate(parts):
        for name in list(stacked) if view else part:
            array = part.get(name)
            if array is None:
                del stacked[name]
                continue
            stack = stacked.setdefault(name, _stack_of(num_views, array))
            if stack.shape[2:] != array.shape:
                raise CacheError(f"{name} of view {view} has shape {array.shape}, that of others {stack.shape[2:]}")
            stack[0, view] = array
    return {name: torch.from_numpy(stack) for name, stack in stacked.items()}


def join_sample(
    images: Float[Tensor, "1 views 3 height width"], stacked: Mapping[str, Tensor]
) -> tuple[Views, Prediction]:
    """The records again, from the arrays of their views."""
    found: dict[str, Tensor] = {}
    for name, stack in stacked.items():
        if name.split(".")[1] in PER_SAMPLE and bool((stack == stack[:, :1]).all()):
            stack = stack[:, 0]  # a monocular model has a `metric_scale` for each view; they differ
        found[name] = stack
    views = {name: found.get(f"views.{name}") for name in VIEW_FIELDS}
    prediction = {name: found.get(f"prediction.{name}") for name in PREDICTION_FIELDS}
    return Views(images=images, **views), Prediction(**prediction)


def _stack_of(count: int, array: Array) -> Array:
    """Room for so many arrays [1 count ...], each in the order in memory of this one."""
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    room = np.empty((1, count, *(array.shape[axis] for axis in order)), dtype=array.dtype)
    return room.transpose(0, 1, *(2 + order.index(axis) for axis in range(array.ndim)))


def pack_image(image: Float[Tensor, "3 height width"], jpeg_quality: int | None = None) -> bytes:
    """The image in 8 bits: as PNG, exact for values that are `k / 255`, or as JPEG without chroma subsampling."""
    levels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    buffer = io.BytesIO()
    picture = Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())
    if jpeg_quality is None:
        picture.save(buffer, format="PNG", compress_level=2)
    else:
        picture.save(buffer, format="JPEG", quality=jpeg_quality, subsampling=0)
    return buffer.getvalue()


def unpack_image(data: bytes | memoryview) -> UInt8[np.ndarray[Any, Any], "height width 3"]:
    """BGR levels of a PNG or JPEG, as OpenCV gives them: it takes half of Pillow's time for JPEG, four fifths for PNG.

    Raises:
        CacheError: it is neither, or damaged.
    """
    levels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    if levels is None:
        raise CacheError("a photo cannot be decoded; the shard is damaged")
    return levels


def join_images(photos: Iterable[bytes | memoryview], num_views: int) -> Float[Tensor, "1 views 3 height width"]:
    """The photos of a sample as RGB in [0, 1].

    Raises:
        CacheError: a photo is damaged, or of another size than the first.
    """
    images = np.empty(0, dtype=np.float32)
    for view, photo in enumerate(photos):
        levels = unpack_image(photo)
        if view == 0:
            images = np.empty((1, num_views, 3, *levels.shape[:2]), dtype=np.float32)
        if levels.shape[:2] != images.shape[3:]:
            raise CacheError(f"photo {view} is {levels.shape[:2]}, the first {images.shape[3:]}; the shard is damaged")
        for channel, out in zip((2, 1, 0), images[0, view], strict=True):
            out[...] = cv2.extractChannel(levels, channel)
            out /= 255
    return torch.from_numpy(images)


def _to_array(value: Tensor) -> Array:
    value = value.detach().cpu()
    if value.is_floating_point() and value.dtype not in (torch.float32, torch.float64):
        value = value.float()
    array: np.ndarray[Any, np.dtype[Any]] = value.numpy()
    return array
