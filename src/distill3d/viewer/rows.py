"""From views and predictions to the rows of maps that the report shows: aligned, masked, with errors."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.types import Prediction, Views
from distill3d.viewer.maps import median_scale, relative_error, usable
from distill3d.viewer.records import ViewRow

TRUTH = "truth"
ALIGNMENTS = {
    "sample": "Each source is multiplied by one factor for all its views together: the median ratio to the reference.",
    "view": "Each map is multiplied by a factor of its own: the median ratio to the reference.",
    "none": "Depths are shown as predicted.",
}
"""What `view_rows` did, in words for `ReportData.views_note`."""


def view_rows(
    views: Views,
    predictions: Mapping[str, Prediction],
    names: Sequence[str],
    *,
    reference: str = TRUTH,
    align: Literal["sample", "view", "none"] = "sample",
    notes: Sequence[str] = (),
) -> list[ViewRow]:
    """Compare the depth and confidence of several sources on one sample (batch 1), view by view.

    The reference is the depth of `views` ("truth") where it has one, else the source named `reference`; without either
    nothing is aligned and there are no error maps. Pixels outside `views.valid` or a source's own mask are unknown.
    """
    depths = {name: depth for name, record in predictions.items() if (depth := _depth_of(record)) is not None}
    inside = np.ones(views.images.shape[1:2] + views.images.shape[3:], dtype=bool)
    if views.valid is not None:
        inside = views.valid[0].cpu().numpy()
    if views.depth is not None:
        depths = {TRUTH: views.depth[0].detach().float().cpu().numpy(), **depths}
    depths = {name: np.where(inside & usable(depth), depth, 0).astype(np.float32) for name, depth in depths.items()}
    if reference in depths and align != "none":
        target = depths[reference]
        depths = {
            name: depth if name == reference else depth * _factors(depth, target, align)
            for name, depth in depths.items()
        }
    images = views.images[0].detach().float().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy()
    confidences = {
        name: np.where(inside, values[0].detach().float().cpu().numpy(), np.nan).astype(np.float32)
        for name, record in predictions.items()
        if (values := _confidence_of(record)) is not None
    }
    rows = []
    for index, name in enumerate(names):
        errors = {
            source: relative_error(depth[index], depths[reference][index])
            for source, depth in depths.items()
            if reference in depths and source != reference
        }
        rows.append(
            ViewRow(
                name=name,
                photo=(images[index] * 255).round().astype(np.uint8),
                depth={source: depth[index] for source, depth in depths.items()},
                error=errors,
                confidence={source: values[index] for source, values in confidences.items()},
                note=notes[index] if notes else "",
            )
        )
    return rows


def _depth_of(record: Prediction) -> Float[np.ndarray, "views height width"] | None:
    """Take the depth, or the z of the local pointmap; 0 outside the model's own mask."""
    depth = record.depth
    if depth is None and record.pointmap_camera is not None:
        depth = record.pointmap_camera[..., 2]
    if depth is None:
        return None
    if record.valid is not None:
        depth = torch.where(record.valid, depth, torch.zeros_like(depth))
    return np.asarray(depth[0].detach().float().cpu().numpy())


def _confidence_of(record: Prediction) -> Float[Tensor, "1 views height width"] | None:
    for confidence in (record.confidence_camera, record.confidence_depth, record.confidence_world):
        if confidence is not None:
            return confidence
    return None


def _factors(
    depth: Float[np.ndarray, "views height width"], target: Float[np.ndarray, "views height width"], align: str
) -> Float[np.ndarray, "_ 1 1"]:
    """Scale factors for every view: one for all of them, or one each."""
    if align == "sample":
        scales = [median_scale(depth, target)]
    else:
        scales = [median_scale(own, other) for own, other in zip(depth, target, strict=True)]
    return np.array(scales, dtype=np.float32)[:, None, None]
