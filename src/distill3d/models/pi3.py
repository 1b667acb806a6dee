"""Pi3 and Pi3X: cameras and points of a scene in any order of its views (Wang et al., 2025).

No view is the reference: the world is wherever the network puts it, the same for all views of one call.
"""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from distill3d.errors import ConfigError
from distill3d.geometry.poses import pose_from_rt, transform_points
from distill3d.models import ModelSpec
from distill3d.models._pi3_conditions import Conditions, prepare_conditions
from distill3d.models._pi3_config import PATCH, VARIANTS, Pi3Config
from distill3d.models._pi3_parts import BranchDecoder, CameraHead, MetricDecoder
from distill3d.nn.activations import exp_depth_points
from distill3d.nn.block import Block
from distill3d.nn.chunks import in_chunks
from distill3d.nn.conv_head import RESIDUAL_RENAMES, ConvHead
from distill3d.nn.dino_vit import DinoViT
from distill3d.nn.heads import LinearHead
from distill3d.nn.images import ImageNormalisation, patch_grid
from distill3d.nn.initialise import TOKEN_STD, initialise_
from distill3d.nn.patch_embed import PatchEmbed
from distill3d.nn.pose_attention import camera_frames, inject_poses
from distill3d.nn.rope import Rotary, grid_positions, rotary_table
from distill3d.types import Prediction

INITIAL_SEED = 0
"""Draws fresh weights where no generator is given, so that results repeat."""
QK_NORM_EPS = 1e-5
LARGEST_LOG_DEPTH = 15.0
"""Where Pi3X cuts off the logarithm of depth."""


class Pi3(nn.Module):
    """Encoder per view, blocks over views and scene in turn, heads for points, confidence and cameras."""

    def __init__(self, config: Pi3Config, *, generator: torch.Generator | None = None):
        """Make the network with fresh weights, drawn from `generator` (default: a fixed seed)."""
        super().__init__()
        self.config = config
        dim = config.dim
        self.normalise = ImageNormalisation("imagenet", stored=True)
        self.encoder = _encoder(config, 3)
        self.register_token = nn.Parameter(torch.zeros(1, 1, config.num_registers, dim))
        self.decoder = nn.ModuleList(
            Block(dim, config.heads, layer_scale=0.01, qk_norm_eps=QK_NORM_EPS) for _ in range(config.depth)
        )
        branch = partial(
            BranchDecoder, 2 * dim, config.branch_dim, depth=config.branch_depth, num_heads=config.branch_heads
        )
        self.point_decoder = branch(config.branch_dim)
        self.conf_decoder = branch(config.branch_dim)
        self.camera_decoder = branch(config.camera_dim)
        self.camera_head = CameraHead(config.camera_dim)
        tokens = [self.register_token]
        if config.extended:
            self.point_head: nn.Module = ConvHead([config.branch_dim], out_channels=(2, 1), widths=config.widths)
            self.conf_head: nn.Module = ConvHead([config.branch_dim], out_channels=(1,), widths=config.widths)
            self.metric_token = nn.Parameter(torch.zeros(1, 1, 2 * dim))
            self.metric_decoder = MetricDecoder(
                2 * dim, config.metric_dim, depth=config.branch_depth, num_heads=config.metric_heads
            )
            self.metric_head = nn.Linear(config.metric_dim, 1)
            tokens.append(self.metric_token)
        else:
            self.point_head = LinearHead(config.branch_dim, patch_size=PATCH, out_channels=3)
            self.conf_head = LinearHead(config.branch_dim, patch_size=PATCH, out_channels=1)
        if config.conditions:
            self.depth_encoder = _encoder(config, 2)
            self.depth_emb = nn.Parameter(torch.zeros(1, 1, dim))
            self.ray_embed = PatchEmbed(PATCH, dim, in_channels=2)
            self.pose_inject_blk = nn.ModuleList(
                Block(dim, config.heads, layer_scale=0.01, qk_norm_eps=QK_NORM_EPS) for _ in config.inject_after
            )
            tokens.append(self.depth_emb)
        generator = generator or torch.Generator().manual_seed(INITIAL_SEED)
        initialise_(self, "normal_002", generator)
        for token in tokens:
            nn.init.normal_(token, std=TOKEN_STD, generator=generator)

    def forward(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        *,
        depth: Float[Tensor, "batch views height width"] | None = None,
        intrinsics: Float[Tensor, "batch views 3 3"] | None = None,
        rays: Float[Tensor, "batch views height width 3"] | None = None,
        world_from_camera: Float[Tensor, "batch views 4 4"] | None = None,
        has_depth: Bool[Tensor, "batch views"] | None = None,
        has_rays: Bool[Tensor, "batch views"] | None = None,
        has_pose: Bool[Tensor, "batch views"] | None = None,
        head_chunk: int | None = 8,
    ) -> Prediction:
        """Points in each camera's frame and in the world, their confidence, and the cameras, in float32.

        The world is a frame of the network's own choice, not view 0. Its unit is arbitrary for Pi3 and metres for Pi3X
        (whose `metric_scale` is therefore 1). Confidences are probabilities: the sigmoid of what the network gives,
        the same for both maps. Intrinsics are not predicted; see `geometry.shift` and `geometry.solve`.

        Args:
            images: RGB in [0, 1]; both sides are multiples of 14.
            depth: Pi3X: z-depth where it is known, else 0; any unit, the same for depth and poses of a scene.
            intrinsics: Pi3X: in pixels of the images.
            rays: Pi3X: viewing directions instead of intrinsics, for any camera.
            world_from_camera: Pi3X: poses, which need intrinsics or rays; a scene with one pose alone ignores it.
            has_depth: views whose depth counts; None for all. In the same way `has_rays` and `has_pose`.
            has_rays: see `has_depth`.
            has_pose: see `has_depth`.
            head_chunk: views per pass of the heads, to bound the memory; None for all at once. It changes no value.

        Raises:
            ConfigError: sides that are no multiples, or conditions that the network or the call does not allow.
        """
        batch, views, _, height, width = images.shape
        grid = patch_grid(images, PATCH)
        conditions = prepare_conditions(
            images, depth=depth, intrinsics=intrinsics, rays=rays, world_from_camera=world_from_camera,
            has_depth=has_depth, has_rays=has_rays, has_pose=has_pose,
        )  # fmt: skip
        if conditions is not None and not self.config.conditions:
            raise ConfigError("This network sees photos alone; depth, rays and poses are for Pi3X with conditions.")
        tokens = self.decode(images, conditions)  # (batch * views, registers + patches, 2 dim)
        recompute = self.config.gradient_checkpointing
        local, logits, pose = (
            in_chunks(head, [tokens], grid, head_chunk, recompute=recompute)
            for head in (self._points, self._confidence, self._pose)
        )
        with torch.autocast(images.device.type, enabled=False):
            maps = (batch, views, height, width)
            local, pose = local.permute(0, 2, 3, 1).reshape(*maps, 3), pose.view(batch, views, 4, 4)
            if self.config.extended:
                metric = self._metric(tokens.view(batch, -1, tokens.shape[-1]), grid, views)
                local = local * metric[:, None, None, None, None]
                pose = pose_from_rt(pose[..., :3, :3], pose[..., :3, 3] * metric[:, None, None])
            confidence = logits.float().sigmoid().view(maps)
            return Prediction(
                pointmap_camera=local,
                pointmap_world=transform_points(pose, local),
                confidence_camera=confidence,
                confidence_world=confidence,
                world_from_camera=pose,
                metric_scale=local.new_ones(batch) if self.config.extended else None,
            )

    def decode(
        self, images: Float[Tensor, "batch views 3 height width"], conditions: Conditions | None = None
    ) -> Float[Tensor, "maps tokens two_dim"]:
        """What the last two blocks of the decoder give, side by side; registers first, then the patches row by row."""
        batch, views = images.shape[:2]
        grid = patch_grid(images, PATCH)
        patches = self.encoder(self.normalise(images).flatten(0, 1)).patches
        frames = None
        if conditions is not None:
            patches = patches + self._condition_tokens(conditions).to(patches.dtype)
            if conditions.world_from_camera is not None and bool(conditions.has_pose.any()):
                head_dim = self.config.dim // self.config.heads
                frames = camera_frames(conditions.world_from_camera, conditions.has_pose, grid, head_dim)
        registers = self.register_token[0].expand(batch * views, -1, -1).to(patches.dtype)
        tokens = torch.cat([registers, patches], dim=1)
        per_view = self._rotary(grid, self.config.dim // self.config.heads, images.device)
        per_scene = Rotary(per_view.cos.repeat(1, views, 1, 1), per_view.sin.repeat(1, views, 1, 1))
        last_two: list[Tensor] = []
        for index, block in enumerate(self.decoder):
            over_scene = index % 2 == 1
            shaped = tokens.view(batch, -1, tokens.shape[-1]) if over_scene else tokens
            shaped = self._run(block, shaped, per_scene if over_scene else per_view)
            tokens = shaped.view_as(tokens)
            if frames is not None and index in self.config.inject_after:
                injected = inject_poses(
                    self.pose_inject_blk[self.config.inject_after.index(index)],  # type: ignore[arg-type]
                    tokens[:, self.config.num_registers :].reshape(batch, -1, tokens.shape[-1]),
                    frames,
                ).view(batch * views, -1, tokens.shape[-1])
                tokens = torch.cat([tokens[:, : self.config.num_registers], injected], dim=1)
            last_two = [*last_two[-1:], tokens]
        return torch.cat(last_two, dim=-1)

    def _condition_tokens(self, conditions: Conditions) -> Float[Tensor, "maps patches dim"]:
        total: Tensor | None = None
        if conditions.depth is not None:
            seen = self.depth_encoder(conditions.depth.flatten(0, 1)).patches + self.depth_emb
            total = torch.where(conditions.has_depth.flatten()[:, None, None], seen, 0.0)
        if conditions.rays is not None:
            seen = self.ray_embed(conditions.rays.flatten(0, 1))
            seen = torch.where(conditions.has_rays.flatten()[:, None, None], seen, 0.0)
            total = seen if total is None else total + seen
        assert total is not None
        return total

    def _run(self, block: nn.Module, tokens: Tensor, rotary: Rotary) -> Tensor:
        if self.config.gradient_checkpointing and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(block, tokens, rotary, use_reentrant=False)
            return recomputed
        out: Tensor = block(tokens, rotary)
        return out

    def _rotary(self, grid: tuple[int, int], head_dim: int, device: torch.device) -> Rotary:
        """Registers stand at (0, 0) and do not turn, patches at (row + 1, column + 1)."""
        return rotary_table(F.pad(grid_positions(*grid, device) + 1, (0, 0, self.config.num_registers, 0)), head_dim)

    def _branch(self, decoder: nn.Module, levels: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """The patches for a head in float32."""
        head_dim = self.config.branch_dim // self.config.branch_heads
        out: Tensor = decoder(levels[0], self._rotary(grid, head_dim, levels[0].device))
        return out[:, self.config.num_registers :].float()

    def _dense(self, head: nn.Module, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """The raw map of a head: all of its branches, one after the other."""
        with torch.autocast(patches.device.type, enabled=False):
            if isinstance(head, LinearHead):
                raw: Tensor = head([patches], grid)
                return raw
            maps = [patches.transpose(1, 2).reshape(len(patches), -1, *grid)]
            return torch.cat(head(maps, (grid[0] * PATCH, grid[1] * PATCH)), dim=1)

    def _points(self, levels: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        raw = self._dense(self.point_head, self._branch(self.point_decoder, levels, grid), grid).permute(0, 2, 3, 1)
        points = exp_depth_points(raw, largest=LARGEST_LOG_DEPTH if self.config.extended else None)
        return points.permute(0, 3, 1, 2)

    def _confidence(self, levels: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        return self._dense(self.conf_head, self._branch(self.conf_decoder, levels, grid), grid)

    def _pose(self, levels: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        patches = self._branch(self.camera_decoder, levels, grid)
        with torch.autocast(patches.device.type, enabled=False):
            pose: Tensor = self.camera_head(patches)[:, None]
        return pose

    def _metric(self, memory: Tensor, grid: tuple[int, int], views: int) -> Float[Tensor, " batch"]:
        """Metres per unit of the heads' maps."""
        head_dim = self.config.metric_dim // self.config.metric_heads
        places = self._rotary(grid, head_dim, memory.device)
        everywhere = Rotary(places.cos.repeat(1, views, 1, 1), places.sin.repeat(1, views, 1, 1))
        start = rotary_table(torch.zeros(1, 1, 2, device=memory.device), head_dim)
        token = self.metric_token.expand(len(memory), -1, -1)
        read = self.metric_decoder(token, memory.float(), start, everywhere)
        size: Tensor = self.metric_head(read)[:, 0, 0].exp()
        return size


def _encoder(config: Pi3Config, channels: int) -> DinoViT:
    encoder = DinoViT(
        dim=config.dim,
        depth=config.encoder_depth,
        num_heads=config.heads,
        patch_size=PATCH,
        table_side=config.encoder_table_side,
        layer_scale=1.0,
        in_channels=channels,
    )
    encoder.gradient_checkpointing = config.gradient_checkpointing
    return encoder


SPEC = ModelSpec(
    build=Pi3,
    config=Pi3Config,
    views="joint",
    variants=VARIANTS,
    renames=(
        ("image_mean", "normalise.mean"),
        ("image_std", "normalise.std"),
        (".cross_attn.q_proj.", ".cross_attn.projq."),
        (".cross_attn.k_proj.", ".cross_attn.projk."),
        (".cross_attn.v_proj.", ".cross_attn.projv."),
        *RESIDUAL_RENAMES,
    ),
    prefixes=("module.",),
    # What only conditions need; matters where a variant does without them.
    ignored=("depth_encoder.", "depth_emb", "ray_embed.", "pose_inject_blk."),
    lora_targets=r"encoder\.blocks\.\d+\.attn\.qkv",
    patch_size=PATCH,
    reference_licence="BSD-3-Clause, parts CC BY-NC-SA 4.0",
    licences={"yyfz233/Pi3": "CC-BY-NC-4.0", "yyfz233/Pi3X": "CC-BY-NC-4.0"},
)
