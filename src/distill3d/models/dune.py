"""DUNE: one encoder distilled from DINOv2, MASt3R and Multi-HMR (Sariyildiz et al., 2025); a feature extractor."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.errors import ConfigError
from distill3d.models import ModelSpec
from distill3d.nn.block import Block
from distill3d.nn.dino_vit import DinoViT, ViTTokens
from distill3d.nn.images import ImageNormalisation, patch_grid
from distill3d.nn.initialise import initialise_
from distill3d.types import Prediction

INITIAL_SEED = 0
"""Draws fresh weights where no generator is given, so that results repeat."""


@dataclass(frozen=True, kw_only=True)
class DuneConfig:
    """Every dimension; the defaults are those of the small encoder at 448 pixels."""

    dim: int = 384
    """Width of the tokens."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 6
    """Attention heads."""
    patch_size: int = 14
    """Side of a patch in pixels; both sides of an image are multiples of it."""
    table_side: int = 32
    """Side of the position table in patches: 32 for 448 pixels, 24 for 336."""
    num_registers: int = 4
    """Register tokens."""
    teachers: tuple[str, ...] = ()
    """Teachers to keep projectors and feature statistics for; none for the encoder alone."""
    class_teachers: tuple[str, ...] = ("dino2reg_vitlarge_14",)
    """Those among them that teach the class token too."""
    teacher_dim: int = 1024
    """Width of the teachers' features."""

    def __post_init__(self) -> None:
        if self.heads < 1 or self.dim % self.heads:
            raise ConfigError(f"dim must be a multiple of heads, found {self.dim} and {self.heads}.")


class Projector(nn.Module):
    """From the student's tokens to those of a teacher: a block and a linear layer."""

    def __init__(self, dim: int, num_heads: int, out_dim: int):
        super().__init__()
        self.blocks = nn.ModuleList([Block(dim, num_heads, layer_scale=1e-4)])
        self.linear = nn.Linear(dim, out_dim)

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens out_dim"]:
        """What the student believes the teacher's (standardised) features to be."""
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = self.linear(tokens)
        return out


class FeatureStatistics(nn.Module):
    """Mean and deviation per channel of a teacher's features, as they were counted in training."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Standardise a teacher's features."""
        return (features - self.mean) / self.std.clamp(min=1e-3)


class TeacherNorm(nn.Module):
    """The statistics of one teacher, by kind of token."""

    def __init__(self, dim: int, kinds: tuple[str, ...]):
        super().__init__()
        self.normalizers = nn.ModuleDict({kind: FeatureStatistics(dim) for kind in kinds})


class Dune(nn.Module):
    """The encoder, which sees each view on its own; with `teachers`, also what it was distilled through."""

    encoder: DinoViT
    """In a model without teachers; with them it is the `student`."""
    student: DinoViT

    def __init__(self, config: DuneConfig, *, generator: torch.Generator | None = None):
        """Make the network with fresh weights, drawn from `generator` (default: a fixed seed)."""
        super().__init__()
        self.config = config
        self.normalise = ImageNormalisation("imagenet")
        encoder = DinoViT(
            dim=config.dim,
            depth=config.depth,
            num_heads=config.heads,
            patch_size=config.patch_size,
            table_side=config.table_side,
            num_registers=config.num_registers,
            position_resize="offset",
            mask_token=True,
        )
        # Official files name an encoder's weights differently when it comes alone; see `renames`.
        self.add_module("student" if config.teachers else "encoder", encoder)
        if config.teachers:
            self.projectors = nn.ModuleDict(
                {name: Projector(config.dim, config.heads, config.teacher_dim) for name in config.teachers}
            )
            self.teacher_norms = nn.ModuleDict(
                {
                    name: TeacherNorm(
                        config.teacher_dim, ("cls", "patch") if name in config.class_teachers else ("patch",)
                    )
                    for name in config.teachers
                }
            )
        initialise_(self, "normal_002", generator or torch.Generator().manual_seed(INITIAL_SEED))

    def forward(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        *,
        normed: bool = True,
        head_chunk: int | None = None,
    ) -> Prediction:
        """Patch tokens as `descriptors`, on the grid of patches: (batch, views, height / 14, width / 14, dim).

        They are not repeated over the pixels of a patch, which would tell nothing and cost 196 times the memory; an
        encoder makes no statement about geometry, so every other field is absent.

        Args:
            images: RGB in [0, 1]; both sides are multiples of the patch size.
            normed: after the final LayerNorm (what Distill3R builds on) or before (what DUNE's projectors read).
            head_chunk: views per pass, to bound the memory; None for all at once. It changes no value.

        Raises:
            ConfigError: sides that are no multiples.
        """
        batch, views = images.shape[:2]
        flat = images.flatten(0, 1)[:, None]
        chunk = len(flat) if head_chunk is None else max(1, head_chunk)
        patches = torch.cat([self.encode(part, normed=normed).patches for part in torch.split(flat, chunk)])
        rows, columns = patch_grid(images, self.config.patch_size)
        return Prediction(descriptors=patches.view(batch, views, rows, columns, -1))

    def encode(self, images: Float[Tensor, "batch views 3 height width"], *, normed: bool = True) -> ViTTokens:
        """All tokens of all views, with (batch * views) in front; arguments as for `forward`."""
        patch_grid(images, self.config.patch_size)
        encoder = self.student if self.config.teachers else self.encoder
        tokens: ViTTokens = encoder(self.normalise(images).flatten(0, 1), normed=normed)
        return tokens

    def project(self, images: Float[Tensor, "batch views 3 height width"]) -> dict[str, Float[Tensor, "maps _ _"]]:
        """For every teacher, its standardised features as the student sees them: class token, then patches.

        Raises:
            ConfigError: the model was built without teachers, or sides that are no multiples.
        """
        if not self.config.teachers:
            raise ConfigError("This DUNE has no projectors; build the variant 'vitsmall_14_448_distillation'.")
        tokens = self.encode(images, normed=False)
        joined = torch.cat([tokens.cls[:, None], tokens.patches], dim=1)
        return {name: projector(joined) for name, projector in self.projectors.items()}


SMALL = DuneConfig()
BASE = DuneConfig(dim=768, heads=12)
TINY = DuneConfig(dim=48, depth=3, heads=3, table_side=5, teacher_dim=64)
TEACHERS = ("dino2reg_vitlarge_14", "mast3r_vitlarge_16", "multihmr_vitlarge_14_672")

SPEC = ModelSpec(
    build=Dune,
    config=DuneConfig,
    views="single",
    variants={
        "vitsmall_14_448": SMALL,
        "vitsmall_14_336": replace(SMALL, table_side=24),
        "vitbase_14_448": BASE,
        "vitbase_14_336": replace(BASE, table_side=24),
        "vitsmall_14_448_distillation": replace(SMALL, teachers=TEACHERS),
        "vitbase_14_448_distillation": replace(BASE, teachers=TEACHERS),
        "tiny": TINY,
        "tiny_distillation": replace(TINY, teachers=TEACHERS[:2]),
    },
    renames=(
        # The whole file: encoder.*, projectors.*, teacher_norms.*
        ("encoder.", "student."),
        ("student.blocks.0.", "student.blocks."),
        # The encoder alone, as torch.hub gives it.
        ("cls_token", "encoder.cls_token"),
        ("pos_embed", "encoder.pos_embed"),
        ("register_tokens", "encoder.register_tokens"),
        ("mask_token", "encoder.mask_token"),
        ("patch_embed.", "encoder.patch_embed."),
        ("blocks.0.", "encoder.blocks."),
        ("norm.", "encoder.norm."),
    ),
    # An encoder alone takes its part of the whole file; what does not start with "encoder." is left out.
    prefixes=("module.", "_orig_mod.", "encoder.", "_orig_mod."),
    lora_targets=r"(encoder|student)\.blocks\.\d+\.attn\.qkv",
    patch_size=14,
    reference_licence="NAVER non-commercial",
    licences={"naver/dune": "NAVER non-commercial (code and weights; it passes on to what is trained from them)"},
)
