"""Which pixels a teacher may teach."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.types import Prediction, Views

_CONFIDENCES = ("confidence_world", "confidence_camera", "confidence_depth")


@dataclass(frozen=True, kw_only=True)
class ConfidenceMask:
    """Which pixels the teacher is not sure enough of to teach. Their labels stay in the cache, marked as not valid."""

    percentile: float | None = None
    """Leave out this share (in percent) of each group's usable pixels, the least confident ones."""
    threshold: float | None = None
    """Leave out pixels whose confidence is below this. Confidence is 1 + exp(x), so only values above 1 do anything."""

    def __post_init__(self) -> None:
        if self.percentile is not None and self.threshold is not None:
            raise ConfigError("mask by percentile or by threshold, not by both")
        if self.percentile is not None and not 0 <= self.percentile < 100:
            raise ConfigError(f"the confidence percentile is {self.percentile}; expected 0 (keep all) to below 100")
        if self.threshold is not None and self.threshold <= 1:
            raise ConfigError(
                f"the confidence threshold is {self.threshold}, but confidence is 1 + exp(x): 1 or less keeps every "
                "pixel. Give a value above 1, or a percentile."
            )

    def apply(self, views: Views, prediction: Prediction) -> Prediction:
        """The prediction with a stricter `valid`, judged by the first confidence it has (world, camera, depth).

        Raises:
            ConfigError: the teacher gives no confidence.
        """
        if not self.percentile and self.threshold is None:
            return prediction
        confidence = next((found for name in _CONFIDENCES if (found := getattr(prediction, name)) is not None), None)
        if confidence is None:
            raise ConfigError("this teacher gives no confidence to mask by; leave the confidence mask out")
        usable = usable_pixels(views, prediction)
        if self.threshold is not None:
            return replace(prediction, valid=usable & (confidence >= self.threshold))
        kept = usable.clone()
        for mask, values in zip(kept, confidence, strict=True):
            sure = values[mask].sort().values
            if len(sure):
                mask &= values >= sure[int(len(sure) * (self.percentile or 0) / 100)]
        return replace(prediction, valid=kept)


def usable_pixels(views: Views, prediction: Prediction) -> Bool[Tensor, "batch views height width"]:
    """Part of the photo, and trusted by the teacher."""
    usable = torch.ones_like(views.images[:, :, 0], dtype=torch.bool)
    for mask in (views.valid, prediction.valid):
        if mask is not None:
            usable &= mask
    return usable
