"""The data set's own depth and cameras as labels; with `noise`, an honest stand-in where no network can be had."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.errors import ConfigError, DataError
from distill3d.geometry.cameras import unproject_depth
from distill3d.geometry.poses import invert_pose, transform_points
from distill3d.teachers import TeacherSpec
from distill3d.teachers.labels import content_seed
from distill3d.teachers.noise import disturb
from distill3d.types import Prediction, Views

EXACT_CONFIDENCE = 11.0
"""Of labels without noise, everywhere: what the noise model gives to a relative error of 1.5 %."""


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """Exact pointmaps of rendered or annotated views; or, with `noise`, of a teacher that errs and knows where."""

    noise: float = 0.0
    """0 for exact labels; 1 for the error of a decent network (see `teachers.noise`), 2 for twice that."""
    seed: int = 0
    """Of the noise; it also depends on the photos, so that a rerun gives the same labels."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 10:
            raise ConfigError(f"noise is {self.noise}; expected 0 (exact) to 10, 1 being a decent network")

    @property
    def name(self) -> str:
        """What the header of a cache calls it."""
        return "ground-truth"

    @property
    def licence(self) -> str:
        """The labels belong to the data set."""
        return "that of the data set"

    @property
    def weights_hash(self) -> str | None:
        """There are no weights."""
        return None

    def settings(self) -> dict[str, Any]:
        """Everything that decides the labels."""
        return asdict(self)

    def predict(self, views: Views) -> Prediction:
        """Both pointmaps, poses and intrinsics; `valid` where depth is known. Points of other pixels are the camera's.

        Raises:
            DataError: the views come without depth, poses or intrinsics.
        """
        known = {name: getattr(views, name) for name in ("depth", "world_from_camera", "intrinsics")}
        if missing := [name for name, value in known.items() if value is None]:
            raise DataError(
                "the ground-truth teacher needs depth, poses and intrinsics; these views lack "
                f"{' and '.join(missing)}. "
                "Use a rendered or annotated data set, or a network as the teacher."
            )
        depth = torch.nan_to_num(known["depth"].float(), nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0)
        valid = depth > 0
        if views.valid is not None:
            valid = valid & views.valid
        depth = torch.where(valid, depth, 0.0)
        poses, intrinsics = known["world_from_camera"].double(), known["intrinsics"].double()
        # The data set's world may be far away; float64 until it is gone.
        world_from_camera = invert_pose(poses[:, :1]) @ poses
        world_from_camera[:, 0] = torch.eye(4, dtype=torch.float64, device=poses.device)
        factor, confidence = self._errors(depth, views.images, valid)
        local = factor.double()[..., None] * unproject_depth(depth.double(), intrinsics)
        return Prediction(
            pointmap_world=transform_points(world_from_camera, local).float(),
            pointmap_camera=local.float(),
            confidence_world=confidence,
            confidence_camera=confidence,
            world_from_camera=world_from_camera.float(),
            intrinsics=intrinsics.float(),
            valid=valid,
        )

    def _errors(
        self,
        depth: Float[Tensor, "batch views height width"],
        images: Float[Tensor, "batch views 3 height width"],
        valid: Bool[Tensor, "batch views height width"],
    ) -> tuple[Float[Tensor, "batch views height width"], Float[Tensor, "batch views height width"]]:
        if self.noise == 0:
            return torch.ones_like(depth), torch.full_like(depth, EXACT_CONFIDENCE)
        found = []
        for sample, mask, photos in zip(depth, valid, images, strict=True):
            generator = torch.Generator().manual_seed(content_seed(photos, self.seed))
            found.append(disturb(sample, photos.float(), mask, self.noise, generator))
        factors, confidences = zip(*found, strict=True)
        return torch.stack(factors), torch.where(valid, torch.stack(confidences), 1.0)


TEACHER = TeacherSpec(
    build=GroundTruth,
    description="the depth and cameras that come with rendered or annotated scenes, exact or with realistic error",
)
