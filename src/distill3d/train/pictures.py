"""Pictures of what was learned: photos, the teacher's depth, that of a student or of a network before and after."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.files import atomic_write_bytes
from distill3d.types import Prediction


def draw_validation(
    path: Path,
    images: Float[Tensor, "views 3 height width"],
    teacher: Float[Tensor, "views height width"],
    student: Float[Tensor, "views height width"],
    confidence: Float[Tensor, "views height width"] | None,
    valid: Bool[Tensor, "views height width"],
    title: str,
) -> None:
    """Draw up to four views as rows of a PNG; depths share a scale in each row, pixels outside the mask stay white.

    Raises:
        OutputError: the file cannot be written.
    """
    columns = ["photo", "teacher depth", "student depth", "relative error"]
    rows = [_panels(images[view], teacher[view], [student[view]], valid[view]) for view in range(min(4, len(images)))]
    if confidence is not None:
        columns.append("confidence")
        for view, row in enumerate(rows):
            row.append((confidence[view].log(), {"cmap": "viridis"}))
    _draw_rows(path, columns, rows, title)


class BeforeAfter(NamedTuple):
    """A photo and its depth, on one scale."""

    photo: Float[Tensor, "3 height width"]
    teacher: Float[Tensor, "height width"]
    before: Float[Tensor, "height width"]
    after: Float[Tensor, "height width"]
    valid: Bool[Tensor, "height width"]


def draw_before_after(path: Path, rows: Sequence[BeforeAfter], title: str) -> None:
    """Draw photos as rows of a PNG: photo, depth of the teacher, before, after, and the relative errors of both.

    Raises:
        OutputError: the file cannot be written.
    """
    columns = ["photo", "teacher depth", "before", "after", "error before", "error after"]
    panels = [_panels(row.photo, row.teacher, [row.before, row.after], row.valid) for row in rows]
    _draw_rows(path, columns, panels, title)


_Panel = tuple[Tensor, dict[str, Any]]


def _panels(image: Tensor, teacher: Tensor, others: Sequence[Tensor], valid: Tensor) -> list[_Panel]:
    """The photo, the teacher's depth, the other depths on its scale of colours, and their relative errors."""
    truth = teacher.masked_fill(~valid, torch.nan)
    seen = truth[valid]
    low, high = (seen.min().item(), seen.quantile(0.98).item()) if seen.numel() else (0.0, 1.0)
    depths = [truth, *(other.masked_fill(~valid, torch.nan) for other in others)]
    errors = [(depth - truth).abs() / truth for depth in depths[1:]]
    return [
        (image.permute(1, 2, 0), {}),
        *((depth, {"cmap": "turbo", "vmin": low, "vmax": high}) for depth in depths),
        *((error, {"cmap": "magma", "vmin": 0.0, "vmax": 0.3}) for error in errors),
    ]


def _draw_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[_Panel]], title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.1 * len(columns), 2.0 * len(rows) + 0.4), layout="constrained")
    axes: Any = figure.subplots(len(rows), len(columns), squeeze=False)
    for place, row in enumerate(rows):
        for axis, (panel, style), name in zip(axes[place], row, columns, strict=True):
            axis.imshow(panel.numpy(), interpolation="nearest", **style)
            axis.set_axis_off()
            if place == 0:
                axis.set_title(name, fontsize=9)
    figure.suptitle(title, fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    atomic_write_bytes(path, buffer.getbuffer())


def depth_of(prediction: Prediction) -> Float[Tensor, "batch views height width"] | None:
    """The depth a prediction speaks of: of its local map, or its depth head."""
    if prediction.pointmap_camera is not None:
        return prediction.pointmap_camera[..., 2]
    return prediction.depth
