"""Every setting of a refining run. No torch here: the command line reads this file."""

from dataclasses import dataclass, field

from distill3d.adapters.config import LoraConfig
from distill3d.errors import ConfigError
from distill3d.losses.config import RefineLossConfig
from distill3d.train.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """What an epoch is made of."""

    photos_per_epoch: int | None = 20_000
    """Photos of an epoch, at most as many as there are (then the replayed samples shrink alike); None: all of them."""
    replay_per_epoch: int = 1000
    """Samples of an epoch from each replayed data set."""
    replay_batch: int = 1
    """Replayed samples that pass through the network at once, on each process."""
    replay_views: int = 4
    """Views of a replayed sample; two for the networks of pairs."""

    def __post_init__(self) -> None:
        for name in ("photos_per_epoch", "replay_per_epoch", "replay_batch", "replay_views"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"mix.{name} is {value}, expected 1 or more.")


@dataclass(frozen=True, kw_only=True)
class RefineConfig(RunConfig):
    """Adapters in the encoder of a finished network. `batch` counts photos."""

    base: str = "vggt"
    """The network to refine: dust3r, mast3r, cut3r, vggt (as in the paper), fast3r, pi3 or distill3r."""
    variant: str | None = None
    """Its configuration; None: the one that its weights fit."""
    weights: str | None = None
    """Its weights: a file, a run folder or a hub id. None: fresh ones from a fixed seed, which proves the wiring."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    loss: RefineLossConfig = field(default_factory=RefineLossConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    epochs: float | None = 10.0
    """Times through the mix; sets `steps`. None: `steps` counts."""
    base_features_every: int = 10
    """Steps between two comparisons of the features with those of the frozen base, one more pass of the encoder each;
    0: never. Their norm is logged at every step either way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is not None and self.epochs <= 0:
            raise ConfigError(f"epochs is {self.epochs}, expected a number above 0, or none (then steps counts).")
        if self.base_features_every < 0:
            raise ConfigError(f"base_features_every is {self.base_features_every}, expected 0 or more.")
