"""The settings of the distillation loss; every ablation of the paper is one of them. No torch here."""

from dataclasses import dataclass, fields
from typing import Literal

from distill3d.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DistillLossConfig:
    """The defaults are equations 1 to 6 of the Distill3R paper as printed."""

    alpha_global: float = 2.0
    """Factor of the error of the world pointmap."""
    alpha_local: float = 1.0
    """Factor of the error of the camera pointmaps."""
    gamma: float = 0.001
    """Factor of the confidence term."""
    error: Literal["squared", "distance"] = "squared"
    """Squared Euclidean distance per point (paper), or the distance itself, which outliers move less."""
    normalise: bool = True
    """Divide both sides by their mean distance to the origin: one number per sample for the world, one per view for the
    camera maps. Off: the student learns the teacher's scale (wanted where it is metric)."""
    weight_by: Literal["teacher", "student", "none"] = "teacher"
    """Whose confidence weighs the pixels; "none" is the paper's ablation of weighting."""
    weight_form: Literal["raw", "clamped", "balanced"] = "raw"
    """The confidence itself (as printed); confidence / `clamp_at` within [0, 1] (reference code); or the confidence
    over its mean, so that weighting does not change the size of the loss."""
    clamp_at: float = 10.0
    """The confidence that counts as full with "clamped"."""
    reduction: Literal["pixels", "views"] = "pixels"
    """Mean over all valid pixels (as printed), or the mean over views of the mean over each view's valid pixels."""
    confidence_term: Literal["l1", "log_l1", "likelihood", "none"] = "l1"
    """|student - teacher| (paper); the same of the logarithms; confidence * distance - `likelihood_alpha` *
    log(confidence), which needs no teacher's confidence and moves only the student's (give it a gamma near 1); or
    nothing (the paper's ablation)."""
    likelihood_alpha: float = 0.2
    """Pull towards high confidence with "likelihood": the best confidence is this over the normalised distance."""
    pose_weight: float = 0.0
    """Factor of the relative rotations (radians) and translations (in sizes of the scene) between views."""
    gradient_weight: float = 0.0
    """Factor of the differences of log-distance between neighbours, at four scales."""
    normal_weight: float = 0.0
    """Factor of 1 - cosine between surface normals."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float | int) and not isinstance(value, bool) and not 0 <= value < float("inf"):
                raise ConfigError(f"loss.{item.name} is {value}, expected a finite number that is not negative.")
        if self.clamp_at == 0:
            raise ConfigError("loss.clamp_at is 0, expected the confidence that counts as full, e.g. 10.")


def paper_equations() -> DistillLossConfig:
    """Equations 1 to 6 as printed: raw confidences as weights, one mean over all valid pixels."""
    return DistillLossConfig()


def reference_code() -> DistillLossConfig:
    """What the authors' code computes: confidences clamped to a tenth within [0, 1], and a mean per view first."""
    return DistillLossConfig(weight_form="clamped", reduction="views")


@dataclass(frozen=True, kw_only=True)
class RefineLossConfig:
    """The loss of Fin3R: a monocular teacher's depth on every sample, true pointmaps on replayed views.

    The paper gives the form and no numbers: lambda, alignment and the factor between both parts are ours.
    """

    align: Literal["scale", "scale_shift", "none"] = "scale"
    """What the network's depth may differ by from the teacher's: one factor a view, found by least squares at every
    step (so no gradient changes the scale), a factor and a shift, or nothing (where both are metric). Ours."""
    error: Literal["squared", "distance"] = "squared"
    """Squared error (paper), or the error itself, which outliers move less; in units of the teacher's mean depth."""
    confidence_lambda: float = 0.2
    """Pull towards high confidence, the lambda of both parts; 0.2 is DUSt3R's, the paper does not say."""
    likelihood: bool | None = None
    """Weigh errors by the network's own confidence, beta |e|^2 - lambda log beta (paper); off: plain errors. None: as
    the base was trained."""
    gradient_weight: float = 0.0
    """Factor of the differences of log-depth between neighbours at four scales, for sharp edges. Ours."""
    normal_weight: float = 0.0
    """Factor of 1 - cosine between surface normals. Ours."""
    replay_weight: float = 1.0
    """Factor of the pointmaps of replayed views. Ours."""
    normalise_replay: bool = True
    """Divide both pointmaps of a sample by their mean distance to the origin; off where the base is metric."""

    def __post_init__(self) -> None:
        for name in ("confidence_lambda", "gradient_weight", "normal_weight", "replay_weight"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"loss.{name} is {value}, expected a finite number that is not negative.")
