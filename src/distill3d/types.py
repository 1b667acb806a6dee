"""The records that cross borders: frozen dataclasses of tensors, with `None` for what is absent.

Conventions that hold everywhere: OpenCV axes (x right, y down, z forward); poses are `world_from_camera`; the world is
the camera frame of view 0 unless a record says otherwise; pixel (0, 0) is the *centre* of the top-left pixel; depth is
planar z-depth and 0 means unknown; lengths are in scene units, in metres only where `is_metric` says so.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Views:
    """Photos of scenes, and whatever is known about them."""

    images: Float[Tensor, "batch views 3 height width"]
    """RGB in [0, 1], before any model's own normalisation."""
    intrinsics: Float[Tensor, "batch views 3 3"] | None = None
    """In pixels of these images, integer pixel centres."""
    world_from_camera: Float[Tensor, "batch views 4 4"] | None = None
    depth: Float[Tensor, "batch views height width"] | None = None
    """Planar z-depth, 0 where unknown."""
    valid: Bool[Tensor, "batch views height width"] | None = None
    """False where the canvas shows no photo (padding) or the pixel must not be used."""
    is_metric: Bool[Tensor, " batch"] | None = None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network (or a teacher of any kind) says about `Views`; the same record for every model."""

    pointmap_world: Float[Tensor, "batch views height width 3"] | None = None
    """Points in the frame of view 0 (the papers' *global* pointmap)."""
    pointmap_camera: Float[Tensor, "batch views height width 3"] | None = None
    """Points in each view's own camera frame (*local* pointmap); its scale may differ from the world map's."""
    depth: Float[Tensor, "batch views height width"] | None = None
    confidence_world: Float[Tensor, "batch views height width"] | None = None
    """As the model trained it; `1 + exp(x)`, hence above 1, for the DUSt3R family."""
    confidence_camera: Float[Tensor, "batch views height width"] | None = None
    confidence_depth: Float[Tensor, "batch views height width"] | None = None
    world_from_camera: Float[Tensor, "batch views 4 4"] | None = None
    intrinsics: Float[Tensor, "batch views 3 3"] | None = None
    valid: Bool[Tensor, "batch views height width"] | None = None
    """The model's own mask."""
    normal: Float[Tensor, "batch views height width 3"] | None = None
    descriptors: Float[Tensor, "batch views height width channels"] | None = None
    """One per pixel; pixels of two views that show the same point have a large dot product."""
    confidence_descriptors: Float[Tensor, "batch views height width"] | None = None
    """As the model trained it; `exp(x)`, hence above 0, for MASt3R."""
    metric_scale: Float[Tensor, " batch"] | Float[Tensor, "batch views"] | None = None
    """Metres per unit of the maps; one for each view where the model sees every view on its own."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One place in one world frame: photos, coherent maps and cameras (batch of 1), and how they were found."""

    views: Views
    prediction: Prediction
    """`pointmap_world`, `confidence_world`, `depth`, `world_from_camera` and `intrinsics` are all present and agree."""
    keep: Bool[Tensor, "1 views height width"]
    """Points good enough to show: valid, finite and above the confidence percentile."""
    names: tuple[str, ...]
    """One per view, in the order of the views."""
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What was estimated and how, ready for JSON."""


Record = TypeVar("Record", Views, Prediction)


def map_tensors(record: Record, function: Callable[[Tensor], Tensor]) -> Record:
    """Apply `function` to every tensor that is present."""
    present = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    changed = {name: function(value) for name, value in present.items() if value is not None}
    return dataclasses.replace(record, **changed)


def to_device(record: Record, device: torch.device | str) -> Record:
    """Move every tensor to `device`."""
    return map_tensors(record, lambda tensor: tensor.to(device))


def select_views(record: Record, indices: Sequence[int]) -> Record:
    """Keep the given views, in the given order. Frames are untouched: the world stays where it was."""
    chosen = list(indices)
    # A tensor of one axis speaks of the whole sample; every other one has (batch, views) in front.
    return map_tensors(record, lambda tensor: tensor if tensor.ndim == 1 else tensor[:, chosen])


def collate(records: Sequence[Record]) -> Record:
    """Join samples along the batch axis; a field must be present in all of them or in none.

    Raises:
        ValueError: no records, or a field that only some of them have.
    """
    return _join(records, dim=0)


def collate_views(records: Sequence[Record]) -> Record:
    """Join records of different views of the same samples along the view axis; what speaks of a whole sample stays.

    Raises:
        ValueError: no records, or a field that only some of them have.
    """
    return _join(records, dim=1)


def concatenate(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """As `torch.cat`, but in the order in memory of the first tensor, and a single tensor is not copied.

    Maps of points from a cache have one coordinate after the other; turning them round costs more than reading them.
    """
    first = tensors[0]
    if len(tensors) == 1:
        return first
    order = sorted(range(first.ndim), key=lambda axis: -first.stride()[axis])
    joined = torch.cat([tensor.permute(order) for tensor in tensors], dim=order.index(dim % first.ndim))
    return joined.permute([order.index(axis) for axis in range(first.ndim)])


def _join(records: Sequence[Record], dim: int) -> Record:
    if not records:
        raise ValueError("need at least one record to join")
    joined: dict[str, Tensor] = {}
    for field in dataclasses.fields(records[0]):
        values = [getattr(record, field.name) for record in records]
        present = [value for value in values if value is not None]
        if present and len(present) < len(values):
            raise ValueError(f"{field.name} is present in {len(present)} of {len(values)} records; need all or none")
        if present:
            of_sample = dim == 1 and present[0].ndim == 1
            joined[field.name] = present[0] if of_sample else concatenate(present, dim)
    return dataclasses.replace(records[0], **joined)
