"""Distill3R: the small student of the paper, Fast3R's fusion design at a ninth of its size, and smaller kin of it."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.models import ModelSpec
from distill3d.models._distill3r_config import VARIANTS, Distill3RConfig
from distill3d.nn.activations import exp_points, log_points, one_plus_exp, ray_depth_points, ray_grid
from distill3d.nn.chunks import in_chunks
from distill3d.nn.dino_vit import DinoViT, PositionResize
from distill3d.nn.dpt import DPT_ALIASES, DPT_RENAMES, DPTHead
from distill3d.nn.fusion import INFERENCE_SEED, Fusion, ViewIdEmbedding
from distill3d.nn.heads import LinearHead
from distill3d.nn.images import ImageNormalisation, patch_grid
from distill3d.nn.initialise import initialise_
from distill3d.types import Prediction


class Distill3R(nn.Module):
    """Encoder per view, fusion over all views, one head for the world frame and one for each camera's own."""

    config: Distill3RConfig

    def __init__(self, config: Distill3RConfig, *, generator: torch.Generator | None = None):
        """Make the network with fresh weights, drawn from `generator` (default: a fixed seed)."""
        super().__init__()
        self.config = config
        self.normalise = ImageNormalisation(config.image_normalisation)
        resize: PositionResize = "offset" if config.encoder_recipe == "dune" else "antialias"
        self.encoder = DinoViT(
            dim=config.encoder_dim,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            patch_size=config.patch_size,
            table_side=config.encoder_table_side,
            num_registers=config.encoder_registers,
            mlp_ratio=config.mlp_ratio,
            layer_scale=config.encoder_layer_scale,
            position_resize=resize,
            mask_token=config.unused_weights,
        )
        # Without the norm its weights take no gradient; say so, or distributed training waits for them.
        self.encoder.norm.requires_grad_(config.encoder_norm)
        head_dim = config.fusion_dim // config.fusion_heads
        factor = 1.0 if config.attention_scale == "standard" else math.sqrt(math.log(137) / math.log(20))
        self.fusion = Fusion(
            config.encoder_dim,
            config.fusion_dim,
            depth=config.fusion_depth,
            num_heads=config.fusion_heads,
            mlp_ratio=config.mlp_ratio,
            attention=config.fusion_attention,
            attention_scale=head_dim**-0.5 * factor,
        )
        # Without ids of its own the network still takes those that a caller names.
        policy: Literal["random", "sequential"] = "random" if config.view_ids == "none" else config.view_ids
        self.view_ids = ViewIdEmbedding(config.fusion_dim, num_ids=config.num_view_ids, policy=policy)
        if config.reference_embedding_std is not None:
            self.reference_embedding = nn.Parameter(torch.zeros(2, config.fusion_dim))
        self.head_world = _head(config)
        self.head_camera = _head(config)
        if config.prior_side:
            self.prior = nn.Parameter(torch.zeros(2, 4, config.prior_side, config.prior_side))
        if config.camera_activation == "ray_log_depth":
            tangent = math.tan(math.radians(config.initial_half_fov_deg))
            self.log_tan_half_fov = nn.Parameter(torch.tensor(math.log(tangent)))
        if generator is None:
            generator = torch.Generator().manual_seed(INFERENCE_SEED)
        initialise_(self, config.initialisation, generator)
        if config.reference_embedding_std is not None:
            nn.init.normal_(self.reference_embedding, std=config.reference_embedding_std, generator=generator)
        self.encoder.gradient_checkpointing = config.gradient_checkpointing
        self.fusion.gradient_checkpointing = config.gradient_checkpointing

    def forward(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        *,
        view_ids: Int[Tensor, "batch views"] | None = None,
        generator: torch.Generator | None = None,
        head_chunk: int | None = None,
    ) -> Prediction:
        """Both pointmaps with their confidences, in float32; the world is the camera frame of view 0.

        Args:
            images: RGB in [0, 1]; both sides are multiples of the patch size.
            view_ids: rows of the id table for every view (0 marks the reference); None to follow the configuration.
            generator: draws random view ids. Needed in training mode; otherwise a fixed seed makes results repeat.
            head_chunk: views per pass of the heads, to bound the memory; None for all at once. It changes no value.

        Raises:
            ConfigError: sides that are no multiples, too many views, or training without a generator.
        """
        batch, views, _, height, width = images.shape
        grid = patch_grid(images, self.config.patch_size)
        normalised = self.normalise(images)
        tokens = self.encoder(normalised.flatten(0, 1), normed=self.config.encoder_norm).patches
        embedding = self._view_embedding(batch, views, view_ids, generator)
        levels = self.fusion(tokens.view(batch, views, *tokens.shape[1:]), embedding.to(images.device))
        depth = self.config.fusion_depth
        hooked = [levels[index].flatten(0, 1) for index in (0, depth // 2, depth * 3 // 4, depth)]
        with torch.autocast(images.device.type, enabled=False):
            prior = self._prior(height, width)
        raw_world = self._run_head(self.head_world, hooked, grid, head_chunk)
        raw_camera = self._run_head(self.head_camera, hooked, grid, head_chunk)
        with torch.autocast(images.device.type, enabled=False):
            world, confidence_world = self._activate(raw_world, prior[0], "world")
            camera, confidence_camera = self._activate(raw_camera, prior[1], "camera")
        maps = (batch, views, height, width)
        return Prediction(
            pointmap_world=world.view(*maps, 3),
            pointmap_camera=camera.view(*maps, 3),
            confidence_world=confidence_world.view(maps),
            confidence_camera=confidence_camera.view(maps),
        )

    def _view_embedding(
        self, batch: int, views: int, view_ids: Tensor | None, generator: torch.Generator | None
    ) -> Float[Tensor, "batch views dim"]:
        if view_ids is not None or self.config.view_ids != "none":
            embedding: Tensor = self.view_ids(batch, views, view_ids, generator)
        else:
            embedding = self.view_ids.table.new_zeros(batch, views, self.config.fusion_dim)
        if self.config.reference_embedding_std is not None:
            reference, other = self.reference_embedding
            embedding = embedding + torch.stack([reference] + [other] * (views - 1))
        return embedding

    def _run_head(
        self, head: LinearHead | DPTHead, levels: list[Tensor], grid: tuple[int, int], chunk: int | None
    ) -> Float[Tensor, "maps 4 height width"]:
        return in_chunks(head, levels, grid, chunk, recompute=self.config.gradient_checkpointing)

    def _prior(self, height: int, width: int) -> Float[Tensor, "2 4 height width"]:
        if not self.config.prior_side:
            return self.normalise.mean.new_zeros(2, 4, height, width)
        return nn.functional.interpolate(self.prior, size=(height, width), mode="bilinear", align_corners=False)

    def _activate(
        self, raw: Float[Tensor, "maps 4 height width"], prior: Float[Tensor, "4 height width"], frame: str
    ) -> tuple[Float[Tensor, "maps height width 3"], Float[Tensor, "maps height width"]]:
        channels = (raw + prior).permute(0, 2, 3, 1)
        points, confidence = channels[..., :3], one_plus_exp(channels[..., 3])
        if frame == "camera" and self.config.camera_activation == "ray_log_depth":
            return ray_depth_points(points, self.log_tan_half_fov.exp()), confidence
        if frame == "world" and self.config.world_activation == "linear":
            return points, confidence
        return exp_points(points), confidence


def _head(config: Distill3RConfig) -> LinearHead | DPTHead:
    if config.head == "linear":
        return LinearHead(config.fusion_dim, patch_size=config.patch_size)
    return DPTHead(
        (config.encoder_dim, config.fusion_dim, config.fusion_dim, config.fusion_dim),
        patch_size=config.patch_size,
        level_channels=config.dpt_channels,
        features=config.dpt_features,
        hidden=config.dpt_hidden,
        unused_weights=config.unused_weights,
    )


@torch.no_grad()
def initialise_heads_(
    model: Distill3R,
    *,
    mean_world: Float[Tensor, "height width 3"],
    mean_log_depth: Float[Tensor, "height width"],
    tan_half_fov: float | None = None,
    mean_log_confidence: float = 0.0,
    weight_factor: float = 0.1,
) -> None:
    """Let a fresh model start at the mean maps of its training set (per pixel if it has a prior, else on average).

    Args:
        model: changed in place.
        mean_world: mean world pointmap over all views of the training set.
        mean_log_depth: mean of the logarithm of depth.
        tan_half_fov: tangent of half the angle of view along the longer side, for the camera map; None to keep the
            configuration's.
        mean_log_confidence: mean of log(confidence - 1).
        weight_factor: shrinks the last layers' weights, so that the mean is not drowned in noise.
    """
    height, width = mean_log_depth.shape
    config = model.config
    if tan_half_fov is None:
        tan_half_fov = math.tan(math.radians(config.initial_half_fov_deg))
    if config.camera_activation == "ray_log_depth":
        model.log_tan_half_fov.fill_(math.log(tan_half_fov))
        camera = torch.cat([torch.zeros_like(mean_world[..., :2]), mean_log_depth[..., None]], dim=-1)
    else:
        rays = ray_grid(height, width, mean_log_depth.device) * tan_half_fov
        depth = mean_log_depth.exp()[..., None]
        camera = torch.cat([rays * depth, depth], dim=-1)
    undo_world = config.world_activation == "exp"
    undo_camera = config.camera_activation == "exp"
    heads = [(model.head_world, mean_world, undo_world), (model.head_camera, camera, undo_camera)]
    for index, (head, points, undo) in enumerate(heads):
        if not config.prior_side:
            # Averaged as points: the mean of their logarithms would lie too near.
            points = points.mean(dim=(0, 1), keepdim=True)
        raw = log_points(points) if undo else points
        raw = torch.cat([raw, torch.full_like(raw[..., :1], mean_log_confidence)], dim=-1).permute(2, 0, 1)
        last = head.last
        assert last.bias is not None
        last.weight.mul_(weight_factor)
        if config.prior_side:
            last.bias.zero_()
            side = (config.prior_side, config.prior_side)
            model.prior[index] = nn.functional.interpolate(raw[None], size=side, mode="area")[0]
        else:
            # One value per channel; a linear head has patch_size^2 biases for each.
            last.bias.copy_(raw.flatten().repeat_interleave(last.bias.numel() // 4))


SPEC = ModelSpec(
    build=Distill3R,
    config=Distill3RConfig,
    views="joint",
    variants=VARIANTS,
    renames=(
        *DPT_RENAMES,
        ("downstream_head.dpt.", "head_world."),
        ("downstream_head_local.dpt.", "head_camera."),
        ("encoder.blocks.0.", "encoder.blocks."),
        ("decoder.decoder_embed.", "fusion.embed."),
        ("decoder.dec_blocks.", "fusion.blocks."),
        ("decoder.dec_norm.", "fusion.norm."),
    ),
    aliases=DPT_ALIASES,
    prefixes=("student.", "module."),
    # The table of view ids is computed, never loaded; the other two matter only where `unused_weights` is off.
    ignored=("decoder.image_idx_emb", "encoder.mask_token", "scratch.refinenet4.resConfUnit1."),
    lora_targets=r"encoder\.blocks\.\d+\.attn\.qkv",
    patch_size=14,
    licences={"DUNE encoder": "NAVER non-commercial", "DINOv2 encoder": "Apache-2.0"},
)  # fmt: skip
