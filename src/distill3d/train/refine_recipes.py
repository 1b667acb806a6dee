"""Whole refining configurations with a name. To make your own, replace fields of one of these."""

from collections.abc import Callable
from dataclasses import replace

from distill3d.errors import ConfigError
from distill3d.train.config import CheckpointConfig, OptimConfig, SamplingConfig, ValidationConfig
from distill3d.train.refine_config import MixConfig, RefineConfig


def fin3r() -> RefineConfig:
    """Fin3R: 20,000 photos of SA-1B and 1,000 samples each of Hypersim and TartanAir an epoch, ten epochs.

    The paper states this mix, the epochs, the adapters (rank 8, alpha 8, on qkv of every encoder block), the form of
    the losses and what is frozen. It is silent about what is marked below; those are our choices. The rule is that of
    its overview (frobenius), because it merges; the released files need activation_qkv.
    """
    return RefineConfig(
        base="vggt",
        batch=4,  # the paper is silent
        accumulation=4,  # silent
        epochs=10,
        optim=OptimConfig(
            optimizer="adamw",  # silent
            lr=1e-4,  # silent
            weight_decay=0.0,  # silent
            betas=(0.9, 0.999),  # silent
            warmup_steps=200,  # silent
            min_lr_ratio=0.01,  # silent
            clip_norm=1.0,  # silent
        ),
        mix=MixConfig(photos_per_epoch=20_000, replay_per_epoch=1000, replay_batch=1, replay_views=4),  # views: silent
        data=SamplingConfig(reference="random", color_jitter=0.1),  # silent
        validation=ValidationConfig(every_steps=500, groups=32, held_out=0.005, pictures=4),
        checkpoint=CheckpointConfig(every_steps=500, every_seconds=900.0, keep=2),
        head_chunk=4,
        log_every=1,
    )


def photos() -> RefineConfig:
    """A few hundred or thousand photos of your own: short, for sharper depth of one kind of place.

    Without replay the agreement between views can suffer: watch `replay_*` on scenes that you know, or add a replay
    cache.
    """
    base = fin3r()
    return replace(
        base,
        epochs=3,
        mix=MixConfig(photos_per_epoch=None, replay_per_epoch=100),
        optim=replace(base.optim, warmup_steps=20),
        validation=replace(base.validation, every_steps=100, held_out=0.05),
    )


def small() -> RefineConfig:
    """For networks of a few million parameters and pictures of 112 pixels: minutes on a CPU."""
    base = fin3r()
    return replace(
        base,
        base="distill3r",
        batch=24,
        accumulation=1,
        epochs=None,
        steps=250,
        precision="fp32",
        optim=replace(base.optim, lr=3e-3, warmup_steps=10),
        mix=MixConfig(photos_per_epoch=None, replay_per_epoch=200, replay_batch=6, replay_views=4),
        data=SamplingConfig(reference="random", color_jitter=0.0),
        validation=ValidationConfig(every_steps=125, groups=40, pictures=4),
        checkpoint=CheckpointConfig(every_steps=0, every_seconds=60.0),
        head_chunk=None,
    )


RECIPES: dict[str, Callable[[], RefineConfig]] = {"fin3r": fin3r, "photos": photos, "small": small}


def get_recipe(name: str) -> RefineConfig:
    """The settings of a recipe; dashes and underscores are the same.

    Raises:
        ConfigError: there is no recipe of this name.
    """
    found = RECIPES.get(name.replace("-", "_"))
    if found is None:
        raise ConfigError(f"There is no recipe {name!r}. The recipes of finetune are: {', '.join(RECIPES)}.")
    return found()
