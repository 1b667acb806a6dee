"""VGGT: cameras, depth and points of a whole scene in one pass (Wang et al., 2025), and its tracker."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from distill3d.errors import ConfigError
from distill3d.geometry.pose_encoding import decode_cameras
from distill3d.models import ModelSpec
from distill3d.models._vggt_config import VARIANTS, VGGTConfig
from distill3d.models._vggt_tracks import STRIDE, Tracker, Tracks
from distill3d.nn.activations import one_plus_exp, signed_expm1
from distill3d.nn.block import Block, Mlp
from distill3d.nn.chunks import in_chunks
from distill3d.nn.dino_vit import DinoViT
from distill3d.nn.dpt import VGGT_DPT_RENAMES, DPTHead
from distill3d.nn.images import ImageNormalisation, patch_grid
from distill3d.nn.initialise import TOKEN_STD, initialise_
from distill3d.nn.rope import Rotary, grid_positions, rotary_table
from distill3d.types import Prediction

INITIAL_SEED = 0
"""Draws fresh weights where no generator is given, so that results repeat."""
NORM_EPS = 1e-5
"""Of every LayerNorm outside the encoder."""


class CameraHead(nn.Module):
    """From one token per view to nine numbers per camera, refined again and again from their own last value."""

    def __init__(self, dim: int, *, depth: int, num_heads: int, iterations: int):
        """Set up the head for camera tokens of width `dim`."""
        super().__init__()
        self.iterations = iterations
        self.token_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, 9))
        self.embed_pose = nn.Linear(9, dim)
        self.modulation = nn.Linear(dim, 3 * dim)
        self.trunk = nn.ModuleList(Block(dim, num_heads, norm_eps=NORM_EPS, layer_scale=0.01) for _ in range(depth))
        self.trunk_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.pose_branch = Mlp(dim, dim // 2, out_dim=9)

    def forward(self, tokens: Float[Tensor, "batch views dim"]) -> list[Float[Tensor, "batch views 9"]]:
        """The encodings after each refinement (see `geometry.pose_encoding`); the last one is the best."""
        tokens = self.token_norm(tokens)
        plain = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        raw: Tensor | None = None
        encodings = []
        for _ in range(self.iterations):
            # Each refinement learns to mend what it is given, not to steer the ones before it.
            given = self.empty_pose_tokens.expand(*tokens.shape[:2], -1) if raw is None else raw.detach()
            shift, scale, gate = self.modulation(F.silu(self.embed_pose(given))).chunk(3, dim=-1)
            running = gate * (plain * (1 + scale) + shift) + tokens
            for block in self.trunk:
                running = block(running)
            change = self.pose_branch(self.trunk_norm(running))
            raw = change if raw is None else raw + change
            encodings.append(torch.cat([raw[..., :7], F.relu(raw[..., 7:])], dim=-1))
        return encodings


class VGGT(nn.Module):
    """Encoder per view, blocks over views and scene in turn, heads for cameras, depth and world points."""

    def __init__(self, config: VGGTConfig, *, generator: torch.Generator | None = None):
        """Make the network with fresh weights, drawn from `generator` (default: a fixed seed)."""
        super().__init__()
        self.config = config
        self.normalise = ImageNormalisation("imagenet")
        self.encoder = DinoViT(
            dim=config.dim,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            patch_size=config.patch_size,
            table_side=config.encoder_table_side,
            num_registers=config.num_registers,
            layer_scale=1.0,
            mask_token=True,
        )
        # Slot 0 is for the first view of a scene, whose camera is the world; slot 1 for all others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, config.dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.num_registers, config.dim))
        self.frame_blocks = _blocks(config)
        self.global_blocks = _blocks(config)
        self.camera_head = CameraHead(
            2 * config.dim,
            depth=config.camera_depth,
            num_heads=config.camera_heads,
            iterations=config.camera_iterations,
        )
        self.head_world = _dense_head(config, 4)
        self.head_depth = _dense_head(config, 2)
        if config.tracks:
            self.tracker = _tracker(config)
        if generator is None:
            generator = torch.Generator().manual_seed(INITIAL_SEED)
        initialise_(self, "normal_002", generator)
        for token in (self.camera_token, self.register_token):
            nn.init.normal_(token, std=TOKEN_STD, generator=generator)
        if config.tracks:
            for token in (self.tracker.query_ref_token, self.tracker.update.virtual_tracks):
                nn.init.normal_(token, std=TOKEN_STD, generator=generator)
        self.encoder.gradient_checkpointing = config.gradient_checkpointing

    def forward(self, images: Float[Tensor, "batch views 3 height width"], *, head_chunk: int | None = 8) -> Prediction:
        """Cameras, depth and world points with their confidences, in float32.

        The world is the camera frame of view 0 as far as the network has learned it: the first pose is close to the
        identity, and the scale is arbitrary but shared by depth, points and poses. Confidences are above 1.

        Args:
            images: RGB in [0, 1]; both sides are multiples of the patch size.
            head_chunk: views per pass of the dense heads, to bound the memory; None for all at once. It changes no
                value.

        Raises:
            ConfigError: sides that are no multiples.
        """
        batch, views, _, height, width = images.shape
        levels = self.aggregate(images, self.config.dense_levels)
        with torch.autocast(images.device.type, enabled=False):
            encoding = self.camera_head(levels[-1][:, :, 0])[-1]
            world_from_camera, intrinsics = decode_cameras(encoding, height, width)
            dense, grid = self._patches(levels[:-1]), patch_grid(images, self.config.patch_size)
            recompute = self.config.gradient_checkpointing
            raw_depth = in_chunks(self.head_depth, dense, grid, head_chunk, recompute=recompute)
            raw_world = in_chunks(self.head_world, dense, grid, head_chunk, recompute=recompute)
        maps = (batch, views, height, width)
        return Prediction(
            pointmap_world=signed_expm1(raw_world[:, :3]).permute(0, 2, 3, 1).reshape(*maps, 3),
            confidence_world=one_plus_exp(raw_world[:, 3]).view(maps),
            depth=raw_depth[:, 0].exp().view(maps),
            confidence_depth=one_plus_exp(raw_depth[:, 1]).view(maps),
            world_from_camera=world_from_camera,
            intrinsics=intrinsics,
        )

    def track(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        queries: Float[Tensor, "batch points 2"],
        *,
        iterations: int = 4,
        head_chunk: int | None = 8,
    ) -> Tracks:
        """Where points of view 0 are in all views, in float32.

        Args:
            images: as for `forward`.
            queries: pixels (x, y) of view 0.
            iterations: rounds of refinement.
            head_chunk: as for `forward`.

        Raises:
            ConfigError: the model was built without its tracker, or sides that are no multiples.
        """
        if not self.config.tracks:
            raise ConfigError("This VGGT was built without its tracker; build a variant with tracks=True, e.g. 'base'.")
        levels = self.aggregate(images, self.config.dense_levels)[:-1]
        grid = patch_grid(images, self.config.patch_size)
        with torch.autocast(images.device.type, enabled=False):
            maps = in_chunks(self.tracker.features, self._patches(levels), grid, head_chunk)
            tracks: Tracks = self.tracker(maps.view(*images.shape[:2], *maps.shape[1:]), queries, iterations=iterations)
        return tracks

    def aggregate(
        self, images: Float[Tensor, "batch views 3 height width"], indices: Sequence[int]
    ) -> list[Float[Tensor, "batch views tokens dim"]]:
        """The outputs of the pairs of blocks at `indices`, in rising order, and of the last pair.

        Channels: those of the block over the view, then those of the block over the scene. Tokens: one for the camera,
        the registers, the patches row by row.
        """
        batch, views = images.shape[:2]
        rows, columns = patch_grid(images, self.config.patch_size)
        patches = self.encoder(self.normalise(images).flatten(0, 1)).patches
        special = torch.cat([self.camera_token, self.register_token], dim=2)
        special = torch.cat([special[:, :1], special[:, 1:].expand(-1, views - 1, -1, -1)], dim=1)
        special = special.expand(batch, -1, -1, -1).flatten(0, 1).to(patches.dtype)
        tokens = torch.cat([special, patches], dim=1)  # (batch * views, tokens, dim)
        per_view, per_scene = self._rotary(special.shape[1], rows, columns, views, images.device)
        levels = []
        for index, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            frame = self._run(frame_block, tokens, per_view)
            scene = self._run(global_block, frame.view(batch, -1, frame.shape[-1]), per_scene)
            tokens = scene.view(frame.shape)
            if index in indices:
                levels.append(torch.cat([frame, tokens], dim=-1).view(batch, views, tokens.shape[1], -1))
        return [*levels, torch.cat([frame, tokens], dim=-1).view(batch, views, tokens.shape[1], -1)]

    def _rotary(
        self, num_special: int, rows: int, columns: int, views: int, device: torch.device
    ) -> tuple[Rotary, Rotary]:
        # Position 0 does not turn: it is left to the special tokens.
        positions = F.pad(grid_positions(rows, columns, device) + 1, (0, 0, num_special, 0))
        head_dim = self.config.dim // self.config.heads
        per_view = rotary_table(positions, head_dim)
        return per_view, rotary_table(positions.repeat(1, views, 1), head_dim)

    def _run(self, block: nn.Module, tokens: Tensor, rotary: Rotary) -> Tensor:
        if self.config.gradient_checkpointing and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(block, tokens, rotary, use_reentrant=False)
            return recomputed
        out: Tensor = block(tokens, rotary)
        return out

    def _patches(self, levels: Sequence[Tensor]) -> list[Float[Tensor, "maps patches dim"]]:
        first = 1 + self.config.num_registers
        return [level[:, :, first:].flatten(0, 1).float() for level in levels]


def _blocks(config: VGGTConfig) -> nn.ModuleList:
    return nn.ModuleList(
        Block(config.dim, config.heads, norm_eps=NORM_EPS, qk_norm_eps=NORM_EPS, layer_scale=0.01)
        for _ in range(config.depth)
    )


def _dense_head(config: VGGTConfig, out_channels: int) -> DPTHead:
    return DPTHead(
        (2 * config.dim,) * 4,
        patch_size=config.patch_size,
        out_channels=out_channels,
        level_channels=config.dpt_channels,
        features=config.dpt_features,
        hidden=32,
        form="vggt",
        positions=True,
    )


def _tracker(config: VGGTConfig) -> Tracker:
    features = DPTHead(
        (2 * config.dim,) * 4,
        patch_size=config.patch_size // STRIDE,
        out_channels=None,
        level_channels=config.dpt_channels,
        features=config.track_dim,
        form="vggt",
    )
    return Tracker(
        features,
        config.track_dim,
        hidden=config.track_hidden,
        depth=config.track_depth,
        num_heads=config.track_heads,
        levels=config.track_levels,
        radius=config.track_radius,
        num_virtual=config.track_virtual,
    )


SPEC = ModelSpec(
    build=VGGT,
    config=VGGTConfig,
    views="joint",
    variants=VARIANTS,
    renames=(
        ("aggregator.patch_embed.", "encoder."),
        ("aggregator.camera_token", "camera_token"),
        ("aggregator.register_token", "register_token"),
        ("aggregator.frame_blocks.", "frame_blocks."),
        ("aggregator.global_blocks.", "global_blocks."),
        ("camera_head.poseLN_modulation.1.", "camera_head.modulation."),
        ("point_head.", "head_world."),
        ("depth_head.", "head_depth."),
        ("track_head.tracker.", "tracker."),
        ("track_head.feature_extractor.", "tracker.features."),
        (".updateformer.", ".update."),
        (".virual_tracks", ".virtual_tracks"),
        *VGGT_DPT_RENAMES,
    ),
    prefixes=("module.",),
    ignored=("track_head.",),  # only where the configuration carries no tracker
    lora_targets=r"encoder\.blocks\.\d+\.attn\.qkv",
    patch_size=14,
    reference_licence="VGGT License v1",
    licences={
        "facebook/VGGT-1B": "CC-BY-NC-4.0 (non-commercial; check its model card)",
        "facebook/VGGT-1B-Commercial": "VGGT License v1 (commercial use allowed, military use excluded; gated)",
    },
)
