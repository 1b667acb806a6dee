"""MoGe-1 and MoGe-2: the geometry of a photo, right up to scale and a shift of z; MoGe-2 also tells the scale."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from distill3d.errors import ConfigError
from distill3d.models import ModelSpec
from distill3d.models._moge_config import VARIANTS, MoGeConfig
from distill3d.nn.activations import exp_depth_points
from distill3d.nn.conv_head import RESIDUAL_RENAMES, ConvHead, ConvPyramid, append_grid
from distill3d.nn.dino_vit import DinoViT
from distill3d.nn.images import ImageNormalisation
from distill3d.nn.initialise import initialise_
from distill3d.types import Prediction

PATCH = 14
TOP_LEVEL = 9
"""The finest of the resolution levels 0 .. 9."""
MASK_THRESHOLD = 0.5
WORKING_MAPS = 12
"""Float32 maps of the finest level's size and width that a photo holds at once (measured: 5 to 10.4)."""
INFERENCE_SEED = 0
"""Draws fresh weights where no generator is given, so that results repeat."""


class MoGeMaps(NamedTuple):
    """What the network computes for photos of one size."""

    points: Float[Tensor, "batch height width 3"]
    """Right up to scale and a shift of z."""
    mask: Float[Tensor, "batch height width"]
    """Above 0.5 where there is geometry: a free number (version 1) or a probability (version 2)."""
    normal: Float[Tensor, "batch height width 3"] | None = None
    metric_scale: Float[Tensor, " batch"] | None = None


class MoGe(nn.Module, ABC):
    """What both versions share: photos of any size in, one at a time or many."""

    config: MoGeConfig
    affine = True
    """Camera points are right up to scale and a shift of z; see `geometry.monocular.solve_affine`."""

    def __init__(self, config: MoGeConfig):
        super().__init__()
        self.config = config

    @abstractmethod
    def maps(self, images: Float[Tensor, "batch 3 height width"], num_tokens: int) -> MoGeMaps:
        """Every photo on its own, seen by the encoder as about `num_tokens` patches."""

    def forward(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        *,
        num_tokens: int | None = None,
        resolution_level: int = TOP_LEVEL,
        head_chunk: int | None = None,
    ) -> Prediction:
        """Affine-invariant camera points and their mask in float32; version 2: metric scale, perhaps normals.

        The points of a view are right up to one factor and one shift of z, for which see
        `geometry.monocular.solve_affine`; with the shift, `metric_scale` makes metres of them (one per
        view, or one per sample if that is a single view). `confidence_camera` is the mask as the network gives it and
        `valid` is where it exceeds 0.5.

        Args:
            images: RGB in [0, 1], any size.
            num_tokens: patches that the encoder sees; None for what `resolution_level` says.
            resolution_level: 0 (fast) to 9 (fine).
            head_chunk: views per pass of the whole network, to bound the memory; None for all at once. It changes no
                value.

        Raises:
            ConfigError: no such level, or too few tokens to make a grid.
        """
        batch, views = images.shape[:2]
        tokens = self.num_tokens(resolution_level) if num_tokens is None else num_tokens
        parts = torch.split(images.flatten(0, 1), max(1, head_chunk or batch * views))
        chunks = [self.maps(part, tokens) for part in parts]
        points, mask, normal, scale = (_join(field, batch) for field in zip(*chunks, strict=True))
        assert points is not None
        assert mask is not None
        return Prediction(
            pointmap_camera=points,
            confidence_camera=mask,
            valid=mask > MASK_THRESHOLD,
            normal=normal,
            metric_scale=scale[:, 0] if scale is not None and views == 1 else scale,
        )

    def bytes_per_view(self, size: tuple[int, int]) -> int:
        """Memory of one view at the finest level without gradients, an upper bound; see `nn.chunks.DenseModule`."""
        finest = self.config.num_tokens_range[1] * (1 << 2 * len(self.config.widths))
        return 4 * (WORKING_MAPS * self.config.widths[-1] * finest + 8 * size[0] * size[1])

    def num_tokens(self, resolution_level: int) -> int:
        """How many patches a resolution level asks for.

        Raises:
            ConfigError: there is no such level.
        """
        if not 0 <= resolution_level <= TOP_LEVEL:
            raise ConfigError(f"resolution_level must lie in 0 .. {TOP_LEVEL}, found {resolution_level}.")
        low, high = self.config.num_tokens_range
        return int(low + resolution_level / TOP_LEVEL * (high - low))


class MoGe1(MoGe):
    """MoGe-1: the last four levels of DINOv2, one head with a branch for the points and one for the mask."""

    def __init__(self, config: MoGeConfig, *, generator: torch.Generator | None = None):
        """Make the network with fresh weights, drawn from `generator` (default: a fixed seed)."""
        super().__init__(config)
        self.normalise = ImageNormalisation("imagenet", stored=True)
        self.backbone = _encoder(config)
        self.head = ConvHead(
            [config.encoder_dim] * len(config.taken_blocks),
            out_channels=(3, 1),
            project=config.projected_dim,
            widths=config.widths,
            num_res_blocks=config.num_res_blocks[0],
            last_channels=config.last_channels,
        )
        initialise_(self, "normal_002", generator or torch.Generator().manual_seed(INFERENCE_SEED))

    def maps(self, images: Float[Tensor, "batch 3 height width"], num_tokens: int) -> MoGeMaps:
        """Every photo on its own; the head works at a size that need not be a multiple of 14."""
        height, width = images.shape[-2:]
        factor = math.sqrt(num_tokens * PATCH**2 / (height * width))
        size = (int(height * factor), int(width * factor))
        grid = (size[0] // PATCH, size[1] // PATCH)
        _need_grid(grid, num_tokens)
        x = self.normalise(_shrink(images, size, "bicubic"))
        levels = self.backbone.intermediate(
            _shrink(x, (grid[0] * PATCH, grid[1] * PATCH), "bilinear"), self.config.taken_blocks
        )
        raw_points, raw_mask = self.head([_as_map(level.patches, grid) for level in levels], size)
        return MoGeMaps(
            points=exp_depth_points(_to_image(raw_points, (height, width))),
            mask=_to_image(raw_mask, (height, width))[..., 0],
        )


class MoGe2Encoder(nn.Module):
    """DINOv2, with the projections of the taken levels summed to one map."""

    def __init__(self, config: MoGeConfig):
        super().__init__()
        self.taken_blocks = config.taken_blocks
        self.normalise = ImageNormalisation("imagenet", stored=True)
        self.backbone = _encoder(config)
        self.output_projections = nn.ModuleList(
            nn.Conv2d(config.encoder_dim, config.projected_dim, 1) for _ in config.taken_blocks
        )

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "batch dim rows columns"], Float[Tensor, "batch cls_dim"]]:
        """The map, and the class token of the last taken level; the photo takes the aspect of the grid."""
        resized = self.normalise(_shrink(images, (grid[0] * PATCH, grid[1] * PATCH), "bilinear"))
        levels = self.backbone.intermediate(resized, self.taken_blocks)
        maps = [
            project(_as_map(level.patches, grid))
            for project, level in zip(self.output_projections, levels, strict=True)
        ]
        return torch.stack(maps).sum(dim=0), levels[-1].cls


class MoGe2(MoGe):
    """MoGe-2: a neck of five levels, a head for each of points, mask and normals; the class token tells the scale."""

    def __init__(self, config: MoGeConfig, *, generator: torch.Generator | None = None):
        """Make the network with fresh weights, drawn from `generator` (default: a fixed seed)."""
        super().__init__(config)
        dim, widths = config.encoder_dim, (config.projected_dim, *config.widths)
        self.encoder = MoGe2Encoder(config)
        self.neck = ConvPyramid((widths[0] + 2, *(2 for _ in config.widths)), widths, (0, *config.num_res_blocks))
        head_blocks = (0, *config.head_res_blocks)
        self.points_head = ConvPyramid(widths, widths, head_blocks, out_channels=3)
        self.mask_head = ConvPyramid(widths, widths, head_blocks, out_channels=1)
        self.normal_head = ConvPyramid(widths, widths, head_blocks, out_channels=3) if config.normals else None
        self.scale_head = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1)
        )
        initialise_(self, "normal_002", generator or torch.Generator().manual_seed(INFERENCE_SEED))

    def maps(self, images: Float[Tensor, "batch 3 height width"], num_tokens: int) -> MoGeMaps:
        """Every photo on its own; its aspect changes slightly for the encoder, whose grid has whole patches."""
        height, width = images.shape[-2:]
        aspect = width / height
        grid = (round(math.sqrt(num_tokens / aspect)), round(math.sqrt(num_tokens * aspect)))
        _need_grid(grid, num_tokens)
        feature, cls = self.encoder(images, grid)
        levels = [append_grid(feature, aspect)]
        for level in range(1, len(self.config.widths) + 1):
            blank = feature.new_zeros(len(feature), 0, grid[0] * 2**level, grid[1] * 2**level)
            levels.append(append_grid(blank, aspect))
        levels = self.neck(levels)
        size = (height, width)
        raw_points, raw_mask = (_to_image(head(levels)[0], size) for head in (self.points_head, self.mask_head))
        normal = None
        if self.normal_head is not None:
            normal = F.normalize(_to_image(self.normal_head(levels)[0], size), dim=-1)
        return MoGeMaps(
            points=exp_depth_points(raw_points),
            mask=raw_mask[..., 0].sigmoid(),
            normal=normal,
            metric_scale=self.scale_head(cls)[:, 0].float().exp(),
        )


def build(config: MoGeConfig) -> MoGe:
    """The network of a configuration."""
    return MoGe1(config) if config.version == 1 else MoGe2(config)


def _encoder(config: MoGeConfig) -> DinoViT:
    return DinoViT(
        dim=config.encoder_dim,
        depth=config.encoder_depth,
        num_heads=config.encoder_heads,
        patch_size=PATCH,
        table_side=config.encoder_table_side,
        num_registers=0,
        layer_scale=1.0,
        position_resize="offset",
        mask_token=True,
    )


def _need_grid(grid: tuple[int, int], num_tokens: int) -> None:
    if min(grid) < 1:
        raise ConfigError(
            f"{num_tokens} tokens make a grid of {grid[0]}x{grid[1]} patches of such a long photo. "
            "Ask for more tokens, or crop the photo."
        )


def _shrink(images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize with a filter against aliasing, which matters only where it makes the image smaller."""
    return F.interpolate(images, size=size, mode=mode, align_corners=False, antialias=True)


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)


def _to_image(raw: Tensor, size: tuple[int, int]) -> Float[Tensor, "batch height width channels"]:
    """A raw map at the size of the photo, channels last, in float32: exponentials follow."""
    return F.interpolate(raw.float(), size=size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def _join(parts: Sequence[Tensor | None], batch: int) -> Tensor | None:
    present = [part for part in parts if part is not None]
    if not present:
        return None
    joined = torch.cat(present)
    return joined.reshape(batch, -1, *joined.shape[1:])


SPEC = ModelSpec(
    build=build,
    config=MoGeConfig,
    views="single",
    variants=VARIANTS,
    # MoGe-1 keeps its statistics at the top, MoGe-2 in the encoder.
    renames=(
        ("image_mean", "normalise.mean"),
        ("image_std", "normalise.std"),
        ("encoder.image_mean", "encoder.normalise.mean"),
        ("encoder.image_std", "encoder.normalise.std"),
        *RESIDUAL_RENAMES,
    ),
    prefixes=("module.",),
    lora_targets=r"backbone\.blocks\.\d+\.attn\.qkv",
    reference_licence="MIT",
    licences={
        "Ruicheng/moge-vitl": "MIT",
        "Ruicheng/moge-2-vitl-normal": "MIT",
        "Ruicheng/moge-2-vitl": "MIT",
        "Ruicheng/moge-2-vitb-normal": "MIT",
        "Ruicheng/moge-2-vits-normal": "MIT",
    },
)  # fmt: skip
