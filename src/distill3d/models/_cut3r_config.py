"""Every dimension and choice of CUT3R, and its named variants. No torch here."""

from dataclasses import dataclass, replace
from typing import Literal

from distill3d.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CUT3RConfig:
    """Every dimension and choice; the defaults are the network of 512 pixels with DPT heads."""

    patch_size: int = 16
    """Side of a patch in pixels; both sides of an image are multiples of it."""
    encoder_dim: int = 1024
    """Width of the encoder's tokens, of images and of ray maps."""
    encoder_depth: int = 24
    """Number of blocks of the image encoder."""
    encoder_heads: int = 16
    """Attention heads of the image encoder."""
    ray_depth: int = 2
    """Number of blocks of the ray-map encoder."""
    ray_heads: int = 16
    """Attention heads of the ray-map encoder."""
    decoder_dim: int = 768
    """Width of both decoders."""
    decoder_depth: int = 12
    """Number of blocks of each decoder."""
    decoder_heads: int = 12
    """Attention heads of the image decoder, of the pose memory and of the world head."""
    state_heads: int = 16
    """Attention heads of the state decoder."""
    mlp_ratio: float = 4.0
    """Hidden width of every MLP over the width of its tokens."""
    state_size: int = 768
    """Number of state tokens."""
    state_positions: Literal["2d", "1d", "none"] = "2d"
    """Where the state tokens stand for rotary attention: on a grid of even width, on its diagonal, or all at 0."""
    memory_size: int = 256
    """Entries of the pose memory, each twice as wide as the decoders."""
    memory_depth: int = 2
    """Blocks that read from the pose memory, and blocks that write to it."""
    head: Literal["dpt", "linear"] = "dpt"
    """Convolutional heads, or an MLP per token (the network of 224 pixels)."""
    dpt_features: int = 256
    """Channels of the fusion inside the DPT heads."""
    dpt_channels: tuple[int, int, int, int] = (96, 192, 384, 768)
    """Channels of the four reassembled levels of the DPT heads."""
    dpt_hidden: int = 128
    """Channels of the last convolutions of the DPT heads."""
    half_precision_rotary: bool = False
    """Round queries and keys of the image encoder to float16 around the rotary turn, as the reference code does."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        heads = {
            "encoder_heads": self.encoder_dim, "ray_heads": self.encoder_dim,
            "decoder_heads": self.decoder_dim, "state_heads": self.decoder_dim,
        }  # fmt: skip
        for name, dim in heads.items():
            count = getattr(self, name)
            if count < 1 or dim % (4 * count):
                raise ConfigError(
                    f"{name} is {count}, but the width {dim} must be a multiple of four times the heads: each head is "
                    "turned by rows and columns."
                )
        if self.decoder_depth < 4:
            raise ConfigError(f"The heads read four levels: decoder_depth must be >= 4, found {self.decoder_depth}.")
        for name in ("state_size", "memory_size", "memory_depth", "ray_depth", "encoder_depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, found {getattr(self, name)}.")


BASE = CUT3RConfig()

VARIANTS: dict[str, CUT3RConfig] = {
    "base": BASE,
    "linear_224": replace(BASE, head="linear"),
    "tiny": CUT3RConfig(
        encoder_dim=32, encoder_depth=2, encoder_heads=2, ray_depth=1, ray_heads=4,
        decoder_dim=48, decoder_depth=4, decoder_heads=3, state_heads=4, state_size=10, memory_size=6, memory_depth=1,
        dpt_features=16, dpt_channels=(8, 12, 16, 24), dpt_hidden=8,
    ),
}  # fmt: skip
