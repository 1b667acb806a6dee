"""Time and peak memory of a forward pass for growing numbers of views, and the norm of an encoder's features.

Table I of the Distill3R paper: 12 to 128 views of 378 x 518 on one 48 GB card. What the weights are changes no cost, so
an architecture may be measured without any. The norm of the features tells how far fine-tuning moved an encoder from
where its decoder expects it (Fin3R): 9.61 before, 10.5 after plain fine-tuning, 9.73 with re-normalisation.
"""

import gc
import logging
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.errors import ConfigError
from distill3d.infer.reconstruct import predict
from distill3d.progress import ProgressBar
from distill3d.types import Views

logger = logging.getLogger(__name__)

EFFICIENCY, FEATURE_NORM = "efficiency", "feature-norm"
EFFICIENCY_PROTOCOL, FEATURE_NORM_PROTOCOL = "efficiency.distill3r.v1", "feature-norm.fin3r.v1"
NUM_VIEWS = (12, 32, 64, 96, 128)
SIZE = (378, 518)
GIGABYTE = 2**30

PUBLISHED: Mapping[str, Mapping[int, tuple[float, float] | None]] = {
    "Fast3R (384x512)": {
        12: (0.32, 6.86),
        32: (1.14, 12.11),
        64: (3.26, 21.11),
        96: (6.35, 32.36),
        128: (10.11, 44.36),
    },
    "VGGT": {12: (0.59, 15.28), 32: (2.28, 33.98), 64: (6.40, 38.41), 96: None, 128: None},
    "Distill3R": {12: (0.13, 4.05), 32: (0.41, 9.97), 64: (1.02, 21.80), 96: (1.78, 28.69), 128: (2.69, 31.90)},
}
"""Seconds and GB on an RTX 6000 Ada (48 GB), heads unchunked; None: out of memory. Table I of the Distill3R paper."""
PUBLISHED_NORMS: Mapping[str, float] = {
    "original": 9.61, "fine-tuned": 10.53, "fine-tuned, other setting": 10.34, "re-normalised": 9.73,
}  # fmt: skip
"""Of Fin3R's encoder; the photos that they were measured on are not published."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One pass over `num_views` photos."""

    num_views: int
    seconds: float | None
    """Median of the repeats; None where the memory did not suffice."""
    peak_gb: float | None
    """Of the device, weights included; on a CPU the process's largest resident size, which never falls."""


def measure_costs(
    model: nn.Module,
    num_views: Sequence[int] = NUM_VIEWS,
    size: tuple[int, int] = SIZE,
    *,
    repeats: int = 3,
    head_chunk: int | None = None,
    autocast: bool = False,
    seed: int = 0,
) -> list[Cost]:
    """Time passes over random photos, from the fewest views to the most; the first pass of each size is not counted.

    Args:
        model: on its device, in eval mode.
        num_views: ascending, so that a CPU's high-water mark belongs to the pass that set it.
        size: (height, width), whole patches.
        repeats: counted passes of each number.
        head_chunk: views per pass of the heads; None for all at once, as published.
        autocast: bfloat16 where the network allows it.
        seed: of the photos.

    Raises:
        ConfigError: no views, no repeats, or numbers that do not ascend.
    """
    if repeats < 1 or not num_views or list(num_views) != sorted(num_views) or num_views[0] < 1:
        raise ConfigError(f"expected repeats and ascending numbers of views, found {repeats} and {list(num_views)}")
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    costs = []
    with ProgressBar("measuring", total=len(num_views) * (repeats + 1), unit="passes") as bar:
        for count in num_views:
            views = Views(images=torch.rand(1, count, 3, *size, generator=generator).to(device))
            seconds: list[float] = []
            gc.collect()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            try:
                for _ in range(repeats + 1):
                    start = time.perf_counter()
                    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                        predict(model, views, head_chunk=head_chunk)
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
                    seconds.append(time.perf_counter() - start)
                    bar.advance(note=f"{count} views")
            except torch.OutOfMemoryError:
                logger.warning("%d views do not fit into the memory of %s", count, device)
                costs.append(Cost(num_views=count, seconds=None, peak_gb=None))
                torch.cuda.empty_cache()
                continue
            costs.append(Cost(num_views=count, seconds=median(seconds[1:]), peak_gb=_peak_bytes(device) / GIGABYTE))
    return costs


def _peak_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def costs_markdown(name: str, costs: Sequence[Cost], device: str, size: tuple[int, int]) -> str:
    """A row of seconds / GB beside the published ones."""
    counts = [cost.num_views for cost in costs]
    lines = ["| model | " + " | ".join(str(count) for count in counts) + " |", "|---|" + "---:|" * len(counts)]
    ours = {cost.num_views: (cost.seconds, cost.peak_gb) for cost in costs}
    lines.append(f"| {name} | " + " | ".join(_cell(ours[count]) for count in counts) + " |")
    for model, row in PUBLISHED.items():
        lines.append(
            f"| *{model}, published* | " + " | ".join(_cell(row.get(count, (None,))) for count in counts) + " |"
        )
    lines += [
        "",
        f"Protocol {EFFICIENCY_PROTOCOL}: seconds / GB for N views of {size[0]}x{size[1]} on {device}; "
        "published: RTX 6000 Ada, heads unchunked.",
    ]
    return "\n".join(lines)


def _cell(values: Sequence[Any] | None) -> str:
    if values is None:
        return "OOM"
    if len(values) < 2:
        return "-"
    return "OOM" if values[0] is None else f"{values[0]:.2f} / {values[1]:.2f}"


@torch.no_grad()
def feature_norm(model: nn.Module, images: Float[Tensor, "views 3 height width"]) -> float:
    """Mean length of the patch features that the encoder gives, over all patches of all photos, shown one by one.

    Raises:
        ConfigError: the network has no `encoder`, or one whose features are not known here.
    """
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ConfigError(f"{type(model).__name__} has no part called `encoder`, whose features could be measured.")
    caught: list[Tensor] = []

    def catch(_: nn.Module, __: Any, output: Any) -> None:
        features = getattr(output, "patches", getattr(output, "tokens", None))
        if not isinstance(features, Tensor):
            raise ConfigError(f"The encoder of {type(model).__name__} gives {type(output).__name__}, expected tokens.")
        caught.append(torch.linalg.vector_norm(features.double(), dim=-1).flatten().cpu())

    device = next(model.parameters()).device
    handle = encoder.register_forward_hook(catch)
    try:
        for image in images:
            predict(model, Views(images=image[None, None].to(device)))
    finally:
        handle.remove()
    return float(torch.cat(caught).mean())
