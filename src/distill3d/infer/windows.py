"""More views than fit at once: windows that share anchor views, joined by the similarity of their shared points."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool
from torch import Tensor

from distill3d.errors import ConfigError, GeometryError
from distill3d.geometry.align import Similarity, robust_similarity
from distill3d.geometry.poses import pose_from_rt
from distill3d.types import Prediction, select_views


@dataclass(frozen=True)
class Window:
    """Views that go through the model together."""

    anchors: tuple[int, ...]
    """In every window, at its front; view 0 is the first, so all windows share its frame up to scale and error."""
    others: tuple[int, ...]

    @property
    def views(self) -> tuple[int, ...]:
        """All views of the window, in the order in which the model sees them."""
        return self.anchors + self.others


def plan_windows(count: int, max_views: int, num_anchors: int | None = None) -> list[Window]:
    """Split `count` views into windows of at most `max_views`, with anchors spread evenly over all views.

    Args:
        num_anchors: views that all windows share; None is a quarter of a window, at least two.

    Raises:
        ConfigError: windows too small to hold the anchors and one more view.
    """
    if count <= max_views:
        return [Window(anchors=tuple(range(count)), others=())]
    shared = num_anchors if num_anchors is not None else max(2, max_views // 4)
    if shared < 1 or shared >= max_views:
        raise ConfigError(
            f"windows of {max_views} views cannot share {shared} anchor views and bring new ones; "
            "choose max_views of at least 3, and fewer anchors than that"
        )
    anchors = tuple(round(position * (count - 1) / max(shared - 1, 1)) for position in range(shared))
    rest = [view for view in range(count) if view not in anchors]
    room = max_views - shared
    number = -(-len(rest) // room)
    # Windows of equal size: a last window of a single view would be the worst of all.
    borders = [round(part * len(rest) / number) for part in range(number + 1)]
    return [Window(anchors, tuple(rest[start:end])) for start, end in pairwise(borders)]


def join_windows(
    windows: Sequence[Window], predictions: Sequence[Prediction], usable: Bool[Tensor, "1 views height width"]
) -> tuple[Prediction, list[Similarity]]:
    """Bring the predictions of all windows into the frame and scale of the first; views in their original order.

    Args:
        predictions: of each window, batch of 1, in the order of `Window.views`; with world pointmaps.
        usable: pixels of all views that are photo, not padding.

    Returns:
        The joined prediction (anchors from the first window), and `first_from_window` of each further window.

    Raises:
        GeometryError: no world pointmaps, or a window whose shared points cannot be aligned.
    """
    first = predictions[0]
    pieces = [first]
    order = list(windows[0].views)
    fits: list[Similarity] = []
    for number, (window, prediction) in enumerate(zip(windows[1:], predictions[1:], strict=True), start=1):
        fit = _align_anchors(first, prediction, len(window.anchors), usable[:, list(window.anchors)], number)
        fits.append(fit)
        new = range(len(window.anchors), len(window.views))
        pieces.append(move_prediction(select_views(prediction, new), fit))
        order.extend(window.others)
    back = torch.tensor(order).argsort().tolist()
    joined: dict[str, Tensor] = {}
    for field in dataclasses.fields(Prediction):
        values = [getattr(piece, field.name) for piece in pieces]
        if values[0] is not None:
            joined[field.name] = values[0] if values[0].ndim == 1 else torch.cat(values, dim=1)[:, back]
    return Prediction(**joined), fits


def _align_anchors(first: Prediction, other: Prediction, count: int, usable: Tensor, number: int) -> Similarity:
    if first.pointmap_world is None or other.pointmap_world is None:
        raise GeometryError(
            "windows are joined by their world pointmaps, which this model does not give; raise max_views"
        )
    target, source = first.pointmap_world[:, :count].flatten(1, 3), other.pointmap_world[:, :count].flatten(1, 3)
    weight = usable.flatten(1).to(source)
    for prediction in (first, other):
        if prediction.confidence_world is not None:
            weight = weight * prediction.confidence_world[:, :count].flatten(1).clamp(min=0).sqrt()
        if prediction.valid is not None:
            weight = weight * prediction.valid[:, :count].flatten(1)
    finite = torch.isfinite(source).all(dim=-1) & torch.isfinite(target).all(dim=-1) & torch.isfinite(weight)
    try:
        return robust_similarity(source, target, torch.where(finite, weight, 0.0))
    except GeometryError as error:
        raise GeometryError(f"window {number} cannot be joined to the first one: {error}") from error


def move_prediction(prediction: Prediction, fit: Similarity) -> Prediction:
    """Take a prediction of batch 1 into another world by a similarity of batch 1: maps, depth and poses follow.

    What does not depend on frame or scale stays; `metric_scale` shrinks as the maps grow.
    """
    scale = fit.scale
    changed: dict[str, Tensor] = {}
    if prediction.pointmap_world is not None:
        moved = fit.apply(prediction.pointmap_world.flatten(1, 3))
        changed["pointmap_world"] = moved.reshape(prediction.pointmap_world.shape)
    if prediction.pointmap_camera is not None:
        changed["pointmap_camera"] = prediction.pointmap_camera * scale[:, None, None, None, None]
    if prediction.depth is not None:
        changed["depth"] = prediction.depth * scale[:, None, None, None]
    if prediction.world_from_camera is not None:
        pose = prediction.world_from_camera
        changed["world_from_camera"] = pose_from_rt(
            fit.rotation[:, None] @ pose[..., :3, :3], fit.apply(pose[..., :3, 3])
        )
    if prediction.metric_scale is not None:
        changed["metric_scale"] = prediction.metric_scale / scale
    return dataclasses.replace(prediction, **changed)
