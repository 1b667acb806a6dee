"""Two answers that need no network. A model that does not beat them has learned nothing about the photo."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.errors import DataError
from distill3d.eval.truth import missing_truth, training_maps, truth_of
from distill3d.geometry.cameras import unproject_depth
from distill3d.types import Prediction, Views


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """What is the same in all training views; every answer has identity poses, for nothing else is known blindly."""

    depth: float
    """Median depth of the training pixels."""
    intrinsics: Float[Tensor, "3 3"]
    """Mean over the training views."""
    mean_camera: Float[Tensor, "height width 3"]
    """Mean local pointmap, pixel by pixel."""
    mean_reference: Float[Tensor, "height width 3"]
    """Mean world pointmap of first views."""
    mean_world: Float[Tensor, "height width 3"]
    """Mean world pointmap of all the other views."""

    def constant_depth(self, views: Views) -> Prediction:
        """Answer with a wall at the median depth, seen by every view from the same place."""
        batch, count = self._counts(views)
        flat = torch.full(self.mean_camera.shape[:2], self.depth)
        wall = unproject_depth(flat, self.intrinsics).expand(batch, count, *self.mean_camera.shape)
        return self._answer(wall, wall)

    def mean_pointmap(self, views: Views) -> Prediction:
        """Answer with the mean training pointmaps, whatever the photos show."""
        batch, count = self._counts(views)
        local = self.mean_camera.expand(batch, count, *self.mean_camera.shape)
        world = torch.stack([self.mean_reference, *[self.mean_world] * (count - 1)])
        return self._answer(local, world.expand(batch, *world.shape))

    def _counts(self, views: Views) -> tuple[int, int]:
        size = tuple(views.images.shape[-2:])
        if size != tuple(self.mean_camera.shape[:2]):
            raise DataError(
                f"the baselines were made from maps of {tuple(self.mean_camera.shape[:2])} (height, width), but these "
                f"views have {size}; load training and held-out groups on the same canvas"
            )
        return views.images.shape[0], views.images.shape[1]

    def _answer(self, local: Tensor, world: Tensor) -> Prediction:
        batch, count = local.shape[:2]
        return Prediction(
            pointmap_camera=local.clone(),
            pointmap_world=world.clone(),
            world_from_camera=torch.eye(4).repeat(batch, count, 1, 1),
            intrinsics=self.intrinsics.repeat(batch, count, 1, 1),
        )


def fit_baselines(samples: Iterable[Views]) -> Baselines:
    """Look at training groups (batches of 1, with truth, on one canvas) once; groups without truth are passed over.

    Raises:
        DataError: no group has the truth, or their sizes differ.
    """
    depths: list[np.ndarray] = []
    intrinsics: list[Tensor] = []
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    size: tuple[int, ...] | None = None
    for views in samples:
        if missing_truth(views):
            continue
        if size is not None and tuple(views.images.shape[-2:]) != size:
            raise DataError(f"training groups of {size} and {tuple(views.images.shape[-2:])}; load all on one canvas")
        size = tuple(views.images.shape[-2:])
        maps, truth = training_maps(views), truth_of(views)
        valid = torch.from_numpy(truth.valid)
        assert maps.pointmap_camera is not None
        assert maps.pointmap_world is not None
        assert maps.intrinsics is not None
        # Every pixel of a large training set would not fit into memory; 4096 of each group, evenly, speak for it.
        seen = truth.depth[truth.valid]
        depths.append(seen[:: max(1, len(seen) // 4096)])
        intrinsics.append(maps.intrinsics[0].double())
        for name, points, mask in (
            ("camera", maps.pointmap_camera[0], valid),
            ("reference", maps.pointmap_world[0, :1], valid[:1]),
            ("world", maps.pointmap_world[0, 1:], valid[1:]),
        ):
            selected = torch.where(mask[..., None], points, 0.0).double().sum(dim=0)
            sums[name] = sums.get(name, torch.zeros_like(selected)) + selected
            number = mask.sum(dim=0)
            counts[name] = counts.get(name, torch.zeros_like(number)) + number
    if size is None or not any(len(some) for some in depths):
        raise DataError(
            "not one training group has depth, intrinsics and poses, so baselines cannot be made from them. "
            "Leave them out (--train-groups 0); without any truth, let a teacher stand for it "
            "(--teacher T --reference teacher)."
        )
    means = {name: _filled_mean(sums[name], counts[name]) for name in sums}
    for name, other in (("reference", "camera"), ("world", "reference")):
        if not bool(counts[name].any()):
            means[name] = means[other]
    return Baselines(
        depth=float(np.median(np.concatenate(depths))),
        intrinsics=torch.cat(intrinsics).mean(dim=0).float(),
        mean_camera=means["camera"].float(),
        mean_reference=means["reference"].float(),
        mean_world=means["world"].float(),
    )


def _filled_mean(total: Tensor, count: Tensor) -> Tensor:
    """Mean per pixel; a pixel that was never valid gets the mean of all pixels."""
    overall = total.sum(dim=(0, 1)) / count.sum().clamp(min=1)
    return torch.where((count > 0)[..., None], total / count.clamp(min=1)[..., None], overall)
