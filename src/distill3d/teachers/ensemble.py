"""Several monocular teachers as one: the median of their depths after alignment, less sure where they disagree."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.checkpoints import all_licences
from distill3d.errors import ConfigError
from distill3d.teachers import Teacher, TeacherSpec
from distill3d.teachers.mask import usable_pixels
from distill3d.types import Prediction, Views

SHARPNESS = 0.05
"""Relative disagreement at which the confidence has fallen half way from its largest value to 1."""
MOST = 11.0
"""Confidence where all agree."""


class Ensemble:
    """Asks every member, and brings their depths to the scale of the first, view by view."""

    def __init__(self, members: Sequence[Teacher]) -> None:
        """Combine two teachers or more.

        Raises:
            ConfigError: fewer.
        """
        if len(members) < 2:
            raise ConfigError(f"An ensemble of {len(members)} teachers is none; name two or more.")
        self._members = tuple(members)

    @property
    def name(self) -> str:
        """The names of the members."""
        return "+".join(member.name for member in self._members)

    @property
    def licence(self) -> str:
        """Those of the members."""
        return all_licences(member.licence for member in self._members)

    @property
    def weights_hash(self) -> str | None:
        """Those of the members."""
        return "+".join(str(member.weights_hash) for member in self._members)

    def settings(self) -> dict[str, Any]:
        """Those of the members."""
        return {"members": [{"name": member.name, **member.settings()} for member in self._members]}

    @torch.no_grad()
    def predict(self, views: Views) -> Prediction:
        """Camera points on the rays of the first member, at the median depth; valid where all members say so.

        The confidence is 1 + 10 / (1 + disagreement / 0.05), the disagreement being the mean absolute deviation of the
        depths over their median.

        Raises:
            ConfigError: a member gives no camera points.
        """
        found = [member.predict(views) for member in self._members]
        points = [prediction.pointmap_camera for prediction in found]
        if any(map_ is None for map_ in points):
            raise ConfigError("A member of the ensemble gives no camera points; combine monocular teachers.")
        valid = torch.stack([usable_pixels(views, prediction) for prediction in found]).all(dim=0)
        first = points[0]
        assert first is not None
        depths = [self._scaled(map_[..., 2], first[..., 2], valid) for map_ in points if map_ is not None]
        stacked = torch.stack(depths)
        # The mean of the two middle ones: with two members neither wins.
        middle = stacked.quantile(0.5, dim=0)
        positive = valid & (first[..., 2] > 0) & (middle > 0)
        ratio = torch.where(positive, middle / torch.where(positive, first[..., 2], 1.0), 1.0)
        spread = (stacked - middle).abs().mean(dim=0) / middle.clamp(min=1e-6)
        confidence = 1 + (MOST - 1) / (1 + spread / SHARPNESS)
        return Prediction(
            pointmap_camera=first * ratio[..., None],
            confidence_camera=torch.where(positive, confidence, 1.0),
            intrinsics=found[0].intrinsics,
            valid=positive,
        )

    def _scaled(
        self,
        depth: Float[Tensor, "batch views height width"],
        reference: Float[Tensor, "batch views height width"],
        valid: Tensor,
    ) -> Float[Tensor, "batch views height width"]:
        ratio = torch.where(valid & (depth > 0), reference / depth.clamp(min=1e-6), torch.nan)
        middle = ratio.flatten(2).nanmedian(dim=-1).values.nan_to_num(1.0)
        return depth * middle[..., None, None]


TEACHER = TeacherSpec(
    build=Ensemble,
    description="several monocular teachers as one (from Python: load('ensemble', members=[...]))",
)
