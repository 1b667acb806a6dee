"""Every dimension and choice of the Distill3R student, and its named variants. No torch here: recipes stay light."""

from dataclasses import dataclass, replace
from typing import Literal

from distill3d.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Distill3RConfig:
    """Every dimension and every choice of the student; the defaults are the paper's network."""

    patch_size: int = 14
    """Side of a patch in pixels; both sides of an image are multiples of it."""
    image_normalisation: Literal["imagenet", "half"] = "imagenet"
    """ImageNet mean and deviation (what DUNE and DINOv2 were trained with), or 0.5 and 0.5 (what the reference fed)."""

    encoder_dim: int = 384
    """Width of the encoder's tokens."""
    encoder_depth: int = 12
    """Number of encoder blocks."""
    encoder_heads: int = 6
    """Attention heads of the encoder."""
    encoder_registers: int = 4
    """Register tokens of the encoder."""
    encoder_table_side: int = 32
    """Side of the position table in patches: 32 for DUNE 448, 37 for DINOv2."""
    encoder_recipe: Literal["dune", "dinov2_reg"] = "dune"
    """How the position table is resized: with DUNE's offset, or antialiased as DINOv2 with registers does."""
    encoder_layer_scale: float | None = 1e-4
    """Initial LayerScale of the encoder; None for no LayerScale (better when training from scratch)."""
    encoder_norm: bool = True
    """Whether the fusion sees the patch tokens after the encoder's final LayerNorm."""

    fusion_dim: int = 384
    """Width of the fusion's tokens."""
    fusion_depth: int = 6
    """Number of fusion blocks."""
    fusion_heads: int = 6
    """Attention heads of the fusion."""
    fusion_attention: Literal["global", "alternating"] = "global"
    """Every block over all views (paper), or blocks over the scene and over each view in turn."""
    attention_scale: Literal["standard", "log_ratio"] = "standard"
    """Fusion logits times head_dim^-0.5, or sqrt(ln 137 / ln 20) more, as the reference code does in eval mode only."""
    mlp_ratio: float = 4.0
    """Hidden width of every MLP over the width of its tokens."""

    view_ids: Literal["random", "sequential", "none"] = "random"
    """Ids of the views after the first: distinct random ones (paper), 1, 2, 3, ..., or no ids."""
    num_view_ids: int = 1000
    """Rows of the fixed sine-cosine table of view ids, and so the largest number of views."""
    reference_embedding_std: float | None = None
    """Deviation of two learned embeddings, for the reference view and for all others; None for none (paper)."""

    head: Literal["dpt", "linear"] = "dpt"
    """Convolutional heads (paper), or one linear layer per token, which a CPU can afford."""
    dpt_features: int = 256
    """Channels of the fusion inside the DPT heads."""
    dpt_channels: tuple[int, int, int, int] = (96, 192, 384, 768)
    """Channels of the four reassembled levels of the DPT heads."""
    dpt_hidden: int = 128
    """Channels of the last convolutions of the DPT heads."""
    prior_side: int = 0
    """Side of a learned map that is resized and added to the raw output, to start from a mean; 0 for none (paper)."""
    world_activation: Literal["exp", "linear"] = "exp"
    """World points: direction times exp(length) - 1 (paper), or the raw channels themselves."""
    camera_activation: Literal["exp", "ray_log_depth"] = "exp"
    """Camera points: as the world's (paper), or an offset to a learned pinhole's ray and a log-depth."""
    initial_half_fov_deg: float = 31.0
    """Where the pinhole of `ray_log_depth` starts: half the angle of view along the longer side."""

    initialisation: Literal["normal_002", "muon"] = "normal_002"
    """Fresh weights: normal with 0.02, or 0.7 / sqrt(fan_in), which suits Muon and short training."""
    gradient_checkpointing: bool = False
    """Recompute blocks and head chunks in the backward pass: less memory, about a third more time."""
    unused_weights: bool = False
    """Carry the weights that the reference network holds but never uses, so that its files make the round trip."""

    def __post_init__(self) -> None:
        positive = ("patch_size", "encoder_depth", "fusion_depth", "num_view_ids", "encoder_table_side")
        for name in positive:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, found {getattr(self, name)}.")
        for part in ("encoder", "fusion"):
            dim, heads = getattr(self, f"{part}_dim"), getattr(self, f"{part}_heads")
            if heads < 1 or dim % heads or dim % 2:
                raise ConfigError(f"{part}_dim must be even and a multiple of {part}_heads, found {dim} and {heads}.")
        if self.head == "dpt" and self.fusion_depth < 4:
            raise ConfigError(f"A dpt head reads four levels: fusion_depth must be >= 4, found {self.fusion_depth}.")
        if self.view_ids == "none" and self.reference_embedding_std is None:
            raise ConfigError(
                "Without view ids the reference view is known only by its own embedding: "
                "set reference_embedding_std (1.0 is good), or view_ids to 'random' or 'sequential'."
            )


PAPER = Distill3RConfig(unused_weights=True)
SMALL = Distill3RConfig(
    encoder_recipe="dinov2_reg",
    encoder_layer_scale=None,
    encoder_registers=0,
    fusion_attention="alternating",
    view_ids="none",
    reference_embedding_std=1.0,
    head="linear",
    world_activation="linear",
    camera_activation="ray_log_depth",
    prior_side=16,
    initialisation="muon",
)

VARIANTS: dict[str, Distill3RConfig] = {
    "paper": PAPER,
    "paper_dinov2": replace(PAPER, encoder_recipe="dinov2_reg", encoder_table_side=37),
    "laptop": replace(
        SMALL,
        encoder_dim=256, encoder_depth=8, encoder_heads=4, encoder_registers=4, encoder_table_side=16,
        fusion_dim=256, fusion_depth=6, fusion_heads=4,
        head="dpt", dpt_features=64, dpt_channels=(48, 96, 128, 192), dpt_hidden=32, prior_side=0,
    ),
    "demo": replace(
        SMALL,
        encoder_dim=96, encoder_depth=2, encoder_heads=3, encoder_table_side=8,
        fusion_dim=96, fusion_depth=5, fusion_heads=3,
    ),
    "place_teacher": replace(
        SMALL,
        encoder_dim=160, encoder_depth=2, encoder_heads=5, encoder_table_side=8,
        fusion_dim=160, fusion_depth=4, fusion_heads=5,
    ),
    "general_teacher": replace(
        SMALL,
        encoder_dim=256, encoder_depth=4, encoder_heads=8, encoder_table_side=8,
        fusion_dim=256, fusion_depth=4, fusion_heads=8,
    ),
    "tiny": Distill3RConfig(
        encoder_dim=32, encoder_depth=2, encoder_heads=2, encoder_table_side=4, encoder_layer_scale=None,
        fusion_dim=48, fusion_depth=4, fusion_heads=3, num_view_ids=50,
        dpt_features=16, dpt_channels=(8, 12, 16, 24), dpt_hidden=8, initialisation="muon",
    ),
}  # fmt: skip
