"""Every dimension of VGGT, and its named variants. No torch here."""

from dataclasses import dataclass, replace

from distill3d.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class VGGTConfig:
    """Every dimension; the defaults are those of VGGT-1B."""

    patch_size: int = 14
    """Side of a patch in pixels; both sides of an image are multiples of it."""
    dim: int = 1024
    """Width of the tokens in the encoder and in both kinds of blocks; the heads see twice as much."""
    encoder_depth: int = 24
    """Blocks of the encoder, which sees each view on its own (DINOv2 with registers)."""
    encoder_heads: int = 16
    """Attention heads of the encoder."""
    encoder_table_side: int = 37
    """Side of the encoder's position table in patches (518 pixels)."""
    depth: int = 24
    """Pairs of a block over each view and a block over the scene."""
    heads: int = 16
    """Attention heads of these blocks."""
    num_registers: int = 4
    """Register tokens of each view, in the encoder and again, with others, in the blocks."""
    dense_levels: tuple[int, int, int, int] = (4, 11, 17, 23)
    """The pairs whose outputs the dense heads read, in rising order."""
    dpt_features: int = 256
    """Channels of the fusion in the dense heads."""
    dpt_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    """Channels of their four reassembled levels."""
    camera_depth: int = 4
    """Blocks over the camera tokens of a scene, in each refinement."""
    camera_heads: int = 16
    """Attention heads of these blocks."""
    camera_iterations: int = 4
    """Refinements of the cameras."""
    tracks: bool = True
    """Carry the tracker; `forward` never runs it."""
    track_dim: int = 128
    """Width of the tracker's features."""
    track_hidden: int = 384
    """Width of its updates."""
    track_depth: int = 6
    """Rounds of attention in each update."""
    track_heads: int = 8
    """Attention heads of the tracker."""
    track_levels: int = 7
    """Levels of the pyramid in which it compares features."""
    track_radius: int = 4
    """Half the side of its windows, in cells of two pixels."""
    track_virtual: int = 64
    """Virtual tracks, through which the others see each other."""
    gradient_checkpointing: bool = False
    """Recompute blocks and head chunks in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        for part, heads in (("encoder_heads", self.encoder_heads), ("heads", self.heads)):
            if heads < 1 or self.dim % (4 * heads):
                raise ConfigError(f"dim must be a multiple of 4 * {part}, found {self.dim} and {heads}.")
        if list(self.dense_levels) != sorted(set(self.dense_levels)) or self.dense_levels[-1] >= self.depth:
            raise ConfigError(f"dense_levels must rise and stay below the depth {self.depth}: {self.dense_levels}.")


BASE = VGGTConfig()

VARIANTS: dict[str, VGGTConfig] = {
    "base": BASE,
    "base_without_tracks": replace(BASE, tracks=False),
    "tiny": replace(
        BASE,
        dim=64, encoder_depth=3, encoder_heads=4, encoder_table_side=5, depth=4, heads=4,
        dense_levels=(0, 1, 2, 3), dpt_features=32, dpt_channels=(16, 32, 64, 64), camera_depth=2, camera_heads=4,
        track_dim=32, track_hidden=48, track_depth=2, track_levels=4, track_radius=2,
    ),
}  # fmt: skip
