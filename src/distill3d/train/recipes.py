"""Whole configurations with a name. To make your own, replace fields of one of these."""

from collections.abc import Callable
from dataclasses import replace

from distill3d.errors import ConfigError
from distill3d.losses.config import DistillLossConfig
from distill3d.train.config import CheckpointConfig, DistillConfig, OptimConfig, SamplingConfig, ValidationConfig


def paper() -> DistillConfig:
    """The Distill3R paper: 72 M parameters, groups of 20 views, for GPUs with much memory.

    The paper starts from the DUNE encoder: give its file as `pretrained_encoder` (non-commercial), or take the variant
    "paper_dinov2" and a DINOv2 file (Apache-2.0).
    The paper states the rate, the warm-up, the loss weights and the number of cached views. It is silent about what is
    marked below; those are our choices.
    """
    return DistillConfig(
        student="distill3r",
        variant="paper",
        views=20,
        batch=1,  # the paper is silent
        accumulation=8,  # silent
        steps=200_000,  # silent
        optim=OptimConfig(
            optimizer="adamw",
            lr=1e-4,
            encoder_lr=1e-5,  # silent; a tenth keeps the pretrained features while the decoder is still fresh
            weight_decay=0.05,  # silent
            betas=(0.9, 0.95),  # silent
            warmup_steps=3500,
            min_lr_ratio=0.01,  # silent
            clip_norm=1.0,  # silent
        ),
        loss=DistillLossConfig(alpha_global=2.0, alpha_local=1.0, gamma=0.001),
        # The reference masks confidences below 0.3; as 1 + exp(x) is never that small, a percentile does it here.
        data=SamplingConfig(min_views=4, reference="random", color_jitter=0.2, mask_percentile=10.0),  # silent
        validation=ValidationConfig(every_steps=2000, groups=64, held_out=0.02),
        checkpoint=CheckpointConfig(every_steps=2000, every_seconds=1200.0, keep=3),
        workers=8,
        head_chunk=4,
        gradient_checkpointing=True,
        log_every=10,
    )


def laptop() -> DistillConfig:
    """A student of 14 million parameters from scratch, for photos of 224 pixels and a machine with one small GPU.

    Without a GPU it is a matter of days; `--steps 20` proves the wiring.
    """
    base = paper()
    return replace(
        base,
        variant="laptop",
        mean_map_start=True,
        views=4,
        batch=4,
        accumulation=1,
        steps=20_000,
        optim=replace(demo().optim, lr=1e-3, matrix_lr=1e-3, warmup_steps=200),
        loss=DistillLossConfig(error="distance", weight_form="balanced"),
        data=SamplingConfig(min_views=2, reference="random", color_jitter=0.1),
        validation=ValidationConfig(every_steps=1000, groups=32),
        checkpoint=CheckpointConfig(every_steps=1000, every_seconds=600.0),
        workers=2,
        gradient_checkpointing=False,
    )


def demo() -> DistillConfig:
    """A student of a million parameters that learns one place at 112 x 112 pixels, in minutes on two CPU cores.

    Muon and the start at the mean pointmap are what make so few steps enough.
    """
    return DistillConfig(
        student="distill3r",
        variant="demo",
        mean_map_start=True,
        views=4,
        batch=4,
        steps=3000,
        precision="fp32",
        optim=OptimConfig(
            optimizer="muon",
            lr=3e-3,
            matrix_lr=3e-3,
            weight_decay=0.01,
            warmup_steps=60,
            min_lr_ratio=0.01,
            clip_norm=1.0,
        ),
        # The distance itself, not its square: a few far-off points then do not decide what so few steps learn.
        loss=DistillLossConfig(error="distance", weight_form="balanced"),
        data=SamplingConfig(min_views=2, reference="random", color_jitter=0.0),
        validation=ValidationConfig(every_steps=500, groups=16, pictures=1),
        checkpoint=CheckpointConfig(every_steps=0, every_seconds=30.0, keep=2),
    )


def place_teacher() -> DistillConfig:
    """The small neural teacher that knows the place of the demo: longer, larger, from exact labels."""
    base = demo()
    return replace(
        base,
        variant="place_teacher",
        views=6,
        steps=8400,
        precision="bf16",
        optim=replace(base.optim, warmup_steps=100, ema_decay=0.998),
        # Exact labels need no confidence: every pixel counts the same, and the network learns where it errs itself.
        loss=DistillLossConfig(error="distance", weight_by="none", confidence_term="likelihood", gamma=0.2),
        data=SamplingConfig(min_views=2, reference="random", color_jitter=0.0),
        validation=ValidationConfig(every_steps=1500, groups=40, pictures=2),
        checkpoint=CheckpointConfig(every_steps=1500, every_seconds=120.0, keep=2),
        log_every=10,
    )


RECIPES: dict[str, Callable[[], DistillConfig]] = {
    "paper": paper,
    "laptop": laptop,
    "demo": demo,
    "place_teacher": place_teacher,
}


def get_recipe(name: str) -> DistillConfig:
    """The settings of a recipe; dashes and underscores are the same.

    Raises:
        ConfigError: there is no recipe of this name.
    """
    found = RECIPES.get(name.replace("-", "_"))
    if found is None:
        raise ConfigError(f"There is no recipe {name!r}. The recipes are: {', '.join(RECIPES)}.")
    return found()
