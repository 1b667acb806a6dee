"""Every dimension of MoGe-1 and MoGe-2, and the published sizes."""

from dataclasses import dataclass, replace
from typing import Literal

from distill3d.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MoGeConfig:
    """Every dimension of both versions; the defaults are MoGe-1."""

    version: Literal[1, 2] = 1
    """Which of the two networks."""
    encoder_dim: int = 1024
    """Width of the DINOv2 encoder's tokens."""
    encoder_depth: int = 24
    """Number of encoder blocks."""
    encoder_heads: int = 16
    """Attention heads of the encoder."""
    encoder_table_side: int = 37
    """Side of the encoder's position table in patches."""
    taken_blocks: tuple[int, ...] = (20, 21, 22, 23)
    """Encoder blocks whose tokens the heads see."""
    projected_dim: int = 512
    """Channels of the sum of the taken tokens' projections."""
    widths: tuple[int, ...] = (256, 128, 64)
    """Channels after each doubling of the token grid."""
    num_res_blocks: tuple[int, ...] = (2, 2, 2)
    """Residual units after each doubling (version 2: in the neck)."""
    head_res_blocks: tuple[int, ...] = ()
    """Version 2: residual units of each head after each doubling."""
    last_channels: int = 32
    """Version 1: channels before the last layers."""
    normals: bool = False
    """Version 2: whether there is a head for surface normals."""
    num_tokens_range: tuple[int, int] = (1275, 2551)
    """Patches that the encoder sees of an image at resolution level 0 and at level 9."""

    def __post_init__(self) -> None:
        if self.encoder_dim % self.encoder_heads:
            raise ConfigError(f"encoder_dim {self.encoder_dim} must be a multiple of {self.encoder_heads} heads.")
        if not self.taken_blocks or max(self.taken_blocks) >= self.encoder_depth:
            raise ConfigError(f"taken_blocks {self.taken_blocks} must lie in 0 .. {self.encoder_depth - 1}.")
        counts = [self.num_res_blocks] if self.version == 1 else [self.num_res_blocks, self.head_res_blocks]
        if any(len(numbers) != len(self.widths) for numbers in counts):
            raise ConfigError(f"widths {self.widths} and the numbers of residual units must be equally many.")
        if self.version == 1 and (self.normals or len(set(self.num_res_blocks)) != 1):
            raise ConfigError("MoGe-1 has no normals, and as many residual units after every doubling.")


LARGE_2 = MoGeConfig(
    version=2,
    taken_blocks=(5, 11, 17, 23),
    projected_dim=1024,
    widths=(256, 128, 64, 32),
    num_res_blocks=(2, 2, 2, 0),
    head_res_blocks=(1, 1, 1, 0),
    normals=True,
    num_tokens_range=(1200, 3600),
)
BASE_2 = replace(
    LARGE_2, encoder_dim=768, encoder_depth=12, encoder_heads=12, taken_blocks=(5, 11), projected_dim=768,
    num_res_blocks=(1, 1, 1, 0),
)  # fmt: skip

VARIANTS: dict[str, MoGeConfig] = {
    "moge-2-vitl-normal": LARGE_2,
    "moge-2-vitl": replace(LARGE_2, normals=False),
    "moge-2-vitb-normal": BASE_2,
    "moge-2-vits-normal": replace(BASE_2, encoder_dim=384, encoder_heads=6, projected_dim=384),
    "moge-vitl": MoGeConfig(),
    "tiny1": MoGeConfig(
        encoder_dim=48, encoder_depth=4, encoder_heads=3, encoder_table_side=5, taken_blocks=(2, 3),
        projected_dim=64, widths=(64, 32, 32), num_tokens_range=(1200, 2500),
    ),
    "tiny2": MoGeConfig(
        version=2, encoder_dim=48, encoder_depth=4, encoder_heads=3, encoder_table_side=5, taken_blocks=(1, 3),
        projected_dim=64, widths=(32, 32, 16, 16), num_res_blocks=(2, 2, 2, 0), head_res_blocks=(1, 1, 1, 0),
        normals=True, num_tokens_range=(1200, 3600),
    ),
}  # fmt: skip
