"""Every setting of a training run. No torch here: the command line reads this file."""

from dataclasses import dataclass, field
from typing import Literal

from distill3d.devices import Precision
from distill3d.errors import ConfigError
from distill3d.losses.config import DistillLossConfig


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the weights move."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """"muon" takes the hidden matrices and leaves the rest to AdamW; it needs fewer steps from scratch."""
    lr: float = 1e-4
    """Peak rate of AdamW."""
    matrix_lr: float | None = None
    """Peak rate of Muon's matrices, scaled to the step size of AdamW; None: as `lr`."""
    encoder_lr: float | None = None
    """Peak rate of everything under `encoder.` (a pretrained encoder wants less); None: as the rest."""
    weight_decay: float = 0.05
    """For matrices and kernels; never for norms, biases, embeddings and tokens."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's two averages."""
    momentum: float = 0.95
    """Of Muon."""
    warmup_steps: int = 0
    """Optimiser steps of linear warm-up; a shorter run never leaves it."""
    min_lr_ratio: float = 0.0
    """Where the cosine ends, as a share of the peak rate; 1 keeps the rate constant."""
    clip_norm: float | None = 1.0
    """Largest norm of the whole gradient; None: no clipping."""
    ema_decay: float | None = None
    """Decay of the averaged weights; None: no averaging."""

    def __post_init__(self) -> None:
        _check("optim.lr", self.lr > 0, self.lr, "a rate above 0")
        for name in ("matrix_lr", "encoder_lr", "clip_norm"):
            value = getattr(self, name)
            _check(f"optim.{name}", value is None or value > 0, value, "above 0, or none")
        _check("optim.weight_decay", self.weight_decay >= 0, self.weight_decay, "0 or more")
        _check("optim.betas", all(0 <= beta < 1 for beta in self.betas), self.betas, "two numbers in [0, 1)")
        _check("optim.momentum", 0 <= self.momentum < 1, self.momentum, "in [0, 1)")
        _check("optim.warmup_steps", self.warmup_steps >= 0, self.warmup_steps, "0 or more")
        _check("optim.min_lr_ratio", 0 <= self.min_lr_ratio <= 1, self.min_lr_ratio, "between 0 and 1")
        _check(
            "optim.ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, self.ema_decay, "in (0, 1), or none"
        )


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a cached group of views becomes a training sample."""

    min_views: int | None = None
    """Fewest views; each batch draws its number between this and `views`. None: always `views`."""
    reference: Literal["first", "random"] = "random"
    """"random": any cached view may be the reference, and the maps move to its frame; "first": the cached one."""
    color_jitter: float = 0.1
    """Largest relative change of brightness, contrast and saturation; 0: none."""
    flip: float = 0.0
    """Share of the samples that are mirrored, photos, points and cameras alike."""
    crop: float = 1.0
    """Smallest share of the photos' area that a batch sees, in a window that lies elsewhere in each view; 1: all."""
    aspect: tuple[float, float] | None = None
    """Range of width / height of these windows, drawn for each batch; None: that of the photos."""
    crop_multiple: int = 14
    """Windows measure a multiple of so many pixels: the student's patch."""
    mask_percentile: float = 0.0
    """Share (in percent) of each view's pixels, the least confident of the teacher, that are left out."""
    memory_mb: int = 4000
    """A cache that decodes to less than this is kept in memory after the first reading (in the main process only)."""

    def __post_init__(self) -> None:
        _check("data.min_views", self.min_views is None or self.min_views >= 1, self.min_views, "1 or more, or none")
        _check("data.color_jitter", 0 <= self.color_jitter < 1, self.color_jitter, "in [0, 1)")
        _check("data.flip", 0 <= self.flip <= 1, self.flip, "in [0, 1]")
        _check("data.crop", 0 < self.crop <= 1, self.crop, "in (0, 1]")
        good = self.aspect is None or 0 < self.aspect[0] <= self.aspect[1]
        _check("data.aspect", good, self.aspect, "two positive numbers, the smaller first, or none")
        _check("data.crop_multiple", self.crop_multiple >= 1, self.crop_multiple, "1 or more")
        _check("data.mask_percentile", 0 <= self.mask_percentile < 100, self.mask_percentile, "in [0, 100)")
        _check("data.memory_mb", self.memory_mb >= 0, self.memory_mb, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What is watched on groups that are not trained on."""

    every_steps: int = 500
    """Optimiser steps between two validations; 0: never."""
    groups: int = 16
    """At most so many groups are looked at."""
    held_out: float = 0.05
    """Share of the training cache kept back for this; not used where a validation cache is given."""
    pictures: int = 2
    """Groups drawn into `pictures/` at each validation."""

    def __post_init__(self) -> None:
        _check("validation.every_steps", self.every_steps >= 0, self.every_steps, "0 or more")
        _check("validation.groups", self.groups >= 1, self.groups, "1 or more")
        _check("validation.held_out", 0 <= self.held_out < 1, self.held_out, "in [0, 1)")
        _check("validation.pictures", self.pictures >= 0, self.pictures, "0 or more")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How much work a crash may cost."""

    every_steps: int = 1000
    """Optimiser steps between two checkpoints; 0: by time alone."""
    every_seconds: float = 600.0
    """Longest time between two checkpoints; 0: by steps alone."""
    keep: int = 2
    """The newest so many stay on the disk."""

    def __post_init__(self) -> None:
        _check("checkpoint.every_steps", self.every_steps >= 0, self.every_steps, "0 or more")
        _check("checkpoint.every_seconds", self.every_seconds >= 0, self.every_seconds, "0 or more")
        _check("checkpoint.keep", self.keep >= 1, self.keep, "1 or more")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every run of the loop has, whatever it learns. A step is one step of the optimiser over all processes."""

    batch: int = 4
    """Samples that pass through the network at once, on each process."""
    accumulation: int = 1
    """Such batches between two optimiser steps, on each process."""
    steps: int = 10_000
    """Optimiser steps."""
    seed: int = 0
    """Decides fresh weights, the order of samples and every random draw."""
    precision: Precision = "auto"
    """What layers compute in; the loss is always in float32."""
    device: str = "auto"
    """"auto": the accelerator if there is one, else the CPU."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: SamplingConfig = field(default_factory=SamplingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    workers: int = 0
    """Processes that read ahead; any number gives the same samples."""
    overfit: bool = False
    """Train on one fixed batch: a wiring test, the loss must fall to nearly nothing."""
    head_chunk: int | None = None
    """Views that pass through the heads at once, to bound memory; None: all."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, about a third more time."""
    log_every: int = 1
    """Steps between two lines of `metrics.jsonl`."""
    tensorboard: bool = True
    """Write curves for TensorBoard too."""

    def __post_init__(self) -> None:
        for name in ("batch", "accumulation", "steps", "log_every"):
            _check(name, getattr(self, name) >= 1, getattr(self, name), "1 or more")
        _check("workers", self.workers >= 0, self.workers, "0 or more")
        _check("head_chunk", self.head_chunk is None or self.head_chunk >= 1, self.head_chunk, "1 or more, or none")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(RunConfig):
    """A student from a cache."""

    student: str = "distill3r"
    """An architecture of `distill3d models list`."""
    variant: str = "paper"
    """One of its variants."""
    initial_weights: str | None = None
    """Weights or a run folder to start from; None: fresh weights from `seed`."""
    pretrained_encoder: str | None = None
    """Weights of a pretrained encoder to start from."""
    mean_map_start: bool = False
    """Set the biases of the heads so that a fresh student predicts the mean pointmap of the cache."""
    mix: tuple[float, ...] | None = None
    """Of several caches: how often a batch comes from each, relative to the others (3 1: three of four from the first);
    None: as often as it has batches, so that every epoch uses every sample once."""
    views: int = 4
    """Views of a sample, at most as many as a group of the cache has."""
    loss: DistillLossConfig = field(default_factory=DistillLossConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("views", self.views >= 1, self.views, "1 or more")
        fewest = self.data.min_views
        _check("data.min_views", fewest is None or fewest <= self.views, fewest, f"at most views = {self.views}")


def _check(name: str, good: bool, found: object, expected: str) -> None:
    if not good:
        raise ConfigError(f"{name} is {found}, expected {expected}.")
