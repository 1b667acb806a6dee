"""Fast3R: all views of a scene through one transformer, with a pointmap in the world and one in each camera's frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from distill3d.errors import ConfigError
from distill3d.models import ModelSpec
from distill3d.nn.activations import exp_points, one_plus_exp
from distill3d.nn.chunks import in_chunks
from distill3d.nn.croco_vit import CrocoEncoder
from distill3d.nn.dpt import DPT_ALIASES, DPT_RENAMES, DPTHead
from distill3d.nn.fusion import INFERENCE_SEED, Fusion, ViewIdEmbedding, seeded_view_ids
from distill3d.nn.images import ImageNormalisation, patch_grid
from distill3d.nn.initialise import initialise_
from distill3d.nn.portrait import in_orientations
from distill3d.types import Prediction

ATTENTION_BIAS = math.sqrt(math.log(137) / math.log(20))
"""Factor on the fusion's logits for many more views than the 20 of training (137 is the one the authors chose)."""


@dataclass(frozen=True, kw_only=True)
class Fast3RConfig:
    """Every dimension and choice; the defaults are the released network."""

    patch_size: int = 16
    """Side of a patch in pixels; both sides of an image are multiples of it."""
    encoder_dim: int = 1024
    """Width of the encoder's tokens."""
    encoder_depth: int = 24
    """Number of encoder blocks."""
    encoder_heads: int = 16
    """Attention heads of the encoder."""
    fusion_dim: int = 1024
    """Width of the fusion's tokens."""
    fusion_depth: int = 24
    """Number of fusion blocks."""
    fusion_heads: int = 16
    """Attention heads of the fusion."""
    mlp_ratio: float = 4.0
    """Hidden width of every MLP over the width of its tokens."""
    view_ids: Literal["random", "sequential"] = "random"
    """Ids of the views after the first: distinct random ones, as in training, or 1, 2, 3, ..."""
    num_view_ids: int = 1000
    """Rows of the fixed table of view ids, and so the largest number of views."""
    attention_bias_in_eval: bool = False
    """Sharpen the fusion's attention in eval mode by `ATTENTION_BIAS`; the released config.json says no."""
    dpt_features: int = 256
    """Channels of the fusion inside the DPT heads."""
    dpt_channels: tuple[int, int, int, int] = (96, 192, 384, 768)
    """Channels of the four reassembled levels of the DPT heads."""
    dpt_hidden: int = 128
    """Channels of the last convolutions of the DPT heads."""
    gradient_checkpointing: bool = False
    """Recompute blocks and head chunks in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        for part in ("encoder", "fusion"):
            dim, heads = getattr(self, f"{part}_dim"), getattr(self, f"{part}_heads")
            if heads < 1 or dim % heads or dim % 2:
                raise ConfigError(f"{part}_dim must be even and a multiple of {part}_heads, found {dim} and {heads}.")
        if self.fusion_depth < 4:
            raise ConfigError(f"The heads read four levels: fusion_depth must be >= 4, found {self.fusion_depth}.")


class Fast3R(nn.Module):
    """CroCo encoder per view, fusion over all views, one DPT head for the world frame and one for each camera's own."""

    def __init__(self, config: Fast3RConfig, *, generator: torch.Generator | None = None):
        """Make the network with fresh weights, drawn from `generator` (default: a fixed seed)."""
        super().__init__()
        self.config = config
        self.normalise = ImageNormalisation("half")
        self.encoder = CrocoEncoder(
            dim=config.encoder_dim,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            patch_size=config.patch_size,
            mlp_ratio=config.mlp_ratio,
        )
        self.view_ids = ViewIdEmbedding(
            config.fusion_dim, num_ids=config.num_view_ids, policy=config.view_ids, draw=seeded_view_ids
        )
        self.fusion = Fusion(
            config.encoder_dim,
            config.fusion_dim,
            depth=config.fusion_depth,
            num_heads=config.fusion_heads,
            mlp_ratio=config.mlp_ratio,
        )
        self.head_world = _head(config)
        self.head_camera = _head(config)
        self.encoder.gradient_checkpointing = self.fusion.gradient_checkpointing = config.gradient_checkpointing
        initialise_(self, "normal_002", generator or torch.Generator().manual_seed(INFERENCE_SEED))

    def train(self, mode: bool = True) -> "Fast3R":
        """Switch between training and eval mode, which differ where `attention_bias_in_eval` is set."""
        super().train(mode)
        biased = self.config.attention_bias_in_eval and not mode
        scale = (self.config.fusion_dim // self.config.fusion_heads) ** -0.5 * (ATTENTION_BIAS if biased else 1.0)
        self.fusion.set_attention_scale(scale)
        return self

    def forward(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        *,
        view_ids: Int[Tensor, "batch views"] | None = None,
        generator: torch.Generator | None = None,
        head_chunk: int | None = None,
        portrait: Bool[Tensor, "batch views"] | None = None,
    ) -> Prediction:
        """Both pointmaps with their confidences (above 1), in float32; the world is the camera frame of view 0.

        World and camera maps have scales of their own; `infer` brings them together.

        Args:
            images: RGB in [0, 1]; both sides are multiples of the patch size.
            view_ids: rows of the id table for every view (0 marks the reference); None to follow the configuration.
            generator: draws random view ids. Needed in training mode; otherwise a fixed seed makes results repeat.
            head_chunk: views per pass of the heads, to bound the memory; None for all at once. It changes no value.
            portrait: views that hold a portrait image transposed to share a batch with landscape ones (training
                layout); their maps come back transposed, too. None for none.

        Raises:
            ConfigError: sides that are no multiples, too many views, or training without a generator.
        """
        batch, views = images.shape[:2]
        grid = patch_grid(images, self.config.patch_size)
        turned = None if portrait is None else portrait.flatten()
        tokens = self.encoder(self.normalise(images.flatten(0, 1)), turned).tokens.unflatten(0, (batch, views))
        levels = self.fusion(tokens, self.view_ids(batch, views, view_ids, generator), keep=self._hooks)
        return self._predict([level.flatten(0, 1) for level in levels], batch, grid, head_chunk, turned)

    def forward_mixed(
        self,
        images: Sequence[Float[Tensor, "batch 3 _ _"]],
        *,
        view_ids: Int[Tensor, "batch views"] | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Prediction]:
        """`forward` for views of different sizes: one prediction per view, all in the frame of view 0.

        Raises:
            ConfigError: as `forward`.
        """
        grids = [patch_grid(view, self.config.patch_size) for view in images]
        batch = len(images[0])
        tokens = [self.encoder(self.normalise(view)).tokens for view in images]
        embedding = self.view_ids(batch, len(images), view_ids, generator)
        levels = self.fusion.forward_mixed(tokens, embedding, keep=self._hooks)
        return [
            self._predict([level[view] for level in levels], batch, grid, None, None) for view, grid in enumerate(grids)
        ]

    @property
    def _hooks(self) -> tuple[int, int, int, int]:
        depth = self.config.fusion_depth
        return (0, depth // 2, depth * 3 // 4, depth)

    def _predict(
        self,
        levels: list[Tensor],
        batch: int,
        grid: tuple[int, int],
        chunk: int | None,
        portrait: Tensor | None,
    ) -> Prediction:
        # Heads and points in float32 whatever the autocast: their output goes through an exponential.
        with torch.autocast(levels[0].device.type, enabled=False):
            levels = [level.float() for level in levels]
            maps = []
            for head in (self.head_world, self.head_camera):
                chunked = partial(in_chunks, head, chunk=chunk, recompute=self.config.gradient_checkpointing)
                raw = in_orientations(chunked, levels, grid, portrait).permute(0, 2, 3, 1)
                maps.append(raw.reshape(batch, -1, *raw.shape[1:]))  # (batch, views, height, width, 4)
            world, camera = maps
            return Prediction(
                pointmap_world=exp_points(world[..., :3]),
                pointmap_camera=exp_points(camera[..., :3]),
                confidence_world=one_plus_exp(world[..., 3]),
                confidence_camera=one_plus_exp(camera[..., 3]),
            )


def _head(config: Fast3RConfig) -> DPTHead:
    return DPTHead(
        (config.encoder_dim, config.fusion_dim, config.fusion_dim, config.fusion_dim),
        patch_size=config.patch_size,
        level_channels=config.dpt_channels,
        features=config.dpt_features,
        hidden=config.dpt_hidden,
        unused_weights=True,
    )


SPEC = ModelSpec(
    build=Fast3R,
    config=Fast3RConfig,
    views="joint",
    variants={
        "base": Fast3RConfig(),
        "tiny": Fast3RConfig(
            encoder_dim=32, encoder_depth=2, encoder_heads=2, fusion_dim=48, fusion_depth=4, fusion_heads=3,
            dpt_features=16, dpt_channels=(8, 12, 16, 24), dpt_hidden=8,
        ),
    },
    renames=(
        *DPT_RENAMES,
        ("downstream_head.dpt.", "head_world."),
        ("downstream_head_local.dpt.", "head_camera."),
        ("encoder.enc_blocks.", "encoder.blocks."),
        ("encoder.enc_norm.", "encoder.norm."),
        ("decoder.decoder_embed.", "fusion.embed."),
        ("decoder.dec_blocks.", "fusion.blocks."),
        ("decoder.dec_norm.", "fusion.norm."),
    ),
    aliases=DPT_ALIASES,
    prefixes=("net.", "module."),
    # The table of view ids is computed, never loaded.
    ignored=("decoder.image_idx_emb",),
    lora_targets=r"encoder\.blocks\.\d+\.attn\.qkv",
    patch_size=16,
    reference_licence="FAIR Noncommercial Research",
    licences={"jedyang97/Fast3R_ViT_Large_512": "FAIR Noncommercial Research"},
)  # fmt: skip
