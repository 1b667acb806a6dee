"""Every dimension of Pi3 and Pi3X, and the published sizes."""

import math
from dataclasses import dataclass, replace

from distill3d.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Pi3Config:
    """Every dimension; the defaults are those of Pi3."""

    extended: bool = False
    """Pi3X: convolutional heads and a metric scale."""
    conditions: bool = False
    """Pi3X: whether it can be told depth, rays and poses (368 M weights)."""
    dim: int = 1024
    """Width of the tokens in encoder and decoder; the heads see twice as much."""
    encoder_depth: int = 24
    """Blocks of the encoder, which sees each view on its own (DINOv2 with registers)."""
    heads: int = 16
    """Attention heads of encoder and decoder."""
    encoder_table_side: int = 37
    """Side of the encoder's position table in patches (518 pixels)."""
    depth: int = 36
    """Blocks of the decoder: over a view and over the scene in turn."""
    num_registers: int = 5
    """Register tokens of the decoder, the same for every view."""
    branch_dim: int = 1024
    """Width of the tokens in each head's own decoder."""
    branch_depth: int = 5
    """Blocks of each head's own decoder."""
    branch_heads: int = 16
    """Attention heads there."""
    camera_dim: int = 512
    """Width of the camera head."""
    widths: tuple[int, int, int] = (256, 128, 64)
    """Pi3X: channels of the convolutional heads after each doubling."""
    metric_dim: int = 512
    """Pi3X: width of the tokens that find the metric scale."""
    metric_heads: int = 8
    """Pi3X: attention heads there."""
    inject_after: tuple[int, ...] = (1, 9, 17, 25, 33)
    """Pi3X: decoder blocks after which known poses come in."""
    gradient_checkpointing: bool = False
    """Recompute blocks and head chunks in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        pairs = {"dim": self.heads, "branch_dim": self.branch_heads, "metric_dim": self.metric_heads}
        for name, heads in pairs.items():
            if heads < 1 or getattr(self, name) % (4 * heads):
                raise ConfigError(f"{name} must be a multiple of 4 * {heads} heads, found {getattr(self, name)}.")
        if self.depth < 2 or self.depth % 2:
            raise ConfigError(f"depth must be even: blocks come in pairs; found {self.depth}.")
        if self.conditions and (not self.extended or max(self.inject_after) >= self.depth):
            raise ConfigError("Only Pi3X takes conditions, and injects poses after blocks that it has.")


PATCH = 14
MOST_PIXELS = 255_000


def image_size(height: int, width: int, most_pixels: int = MOST_PIXELS) -> tuple[int, int]:
    """The (height, width) that Pi3 was trained to see for a photo of this size, by whole patches.

    The reference code resizes all photos of a scene to the size for the first one.
    """
    factor = math.sqrt(most_pixels / (width * height))
    ideal_columns, ideal_rows = width * factor / PATCH, height * factor / PATCH
    columns, rows = round(ideal_columns), round(ideal_rows)
    while columns * PATCH * rows * PATCH > most_pixels:
        # Take from the side that is too long for the photo's aspect.
        if columns / rows > width / height:
            columns -= 1
        else:
            rows -= 1
    return max(1, rows) * PATCH, max(1, columns) * PATCH


TINY = Pi3Config(
    dim=64, encoder_depth=3, heads=4, encoder_table_side=5, depth=4, branch_dim=48, branch_depth=2, branch_heads=4,
    camera_dim=32, widths=(64, 32, 32), metric_dim=32, metric_heads=4, inject_after=(1, 3),
)  # fmt: skip

VARIANTS: dict[str, Pi3Config] = {
    "pi3": Pi3Config(),
    "pi3x": Pi3Config(extended=True, conditions=True),
    "pi3x-photos": Pi3Config(extended=True),
    "tiny": TINY,
    "tinyx": replace(TINY, extended=True, conditions=True),
}
