"""A picture of what the student has learned: each view, its teacher's depth, its own, the error, its confidence."""

import io
from pathlib import Path
from typing import Any

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
    from matplotlib.figure import Figure

    num_views = min(4, len(images))
    columns = ["photo", "teacher depth", "student depth", "relative error"] + (
        ["confidence"] if confidence is not None else []
    )
    figure = Figure(figsize=(2.1 * len(columns), 2.0 * num_views + 0.4), layout="constrained")
    axes: Any = figure.subplots(num_views, len(columns), squeeze=False)
    for view in range(num_views):
        mask = valid[view]
        truth = teacher[view].masked_fill(~mask, torch.nan)
        guess = student[view].masked_fill(~mask, torch.nan)
        seen = truth[mask]
        low, high = (seen.min().item(), seen.quantile(0.98).item()) if seen.numel() else (0.0, 1.0)
        panels: list[tuple[Tensor, dict[str, Any]]] = [
            (images[view].permute(1, 2, 0), {}),
            (truth, {"cmap": "turbo", "vmin": low, "vmax": high}),
            (guess, {"cmap": "turbo", "vmin": low, "vmax": high}),
            ((guess - truth).abs() / truth, {"cmap": "magma", "vmin": 0.0, "vmax": 0.3}),
        ]
        if confidence is not None:
            panels.append((confidence[view].log(), {"cmap": "viridis"}))
        for axis, (panel, style), name in zip(axes[view], panels, columns, strict=True):
            axis.imshow(panel.numpy(), interpolation="nearest", **style)
            axis.set_axis_off()
            if view == 0:
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
