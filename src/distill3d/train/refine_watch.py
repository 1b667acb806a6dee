"""What is watched while refining: depth of held-out photos, geometry of held-out scenes, features; before and after."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distill3d.adapters.lora import adapters_off
from distill3d.errors import ConfigError
from distill3d.eval.metrics.boundary import boundary_f1
from distill3d.eval.metrics.points import point_scores
from distill3d.files import atomic_write_bytes
from distill3d.train.bases import Base, encoder_of, view_depth, world_points
from distill3d.train.features import EncoderWatch
from distill3d.train.job import NumberedBatches, Seen
from distill3d.train.pictures import BeforeAfter, draw_before_after
from distill3d.train.refine_config import RefineConfig
from distill3d.train.refine_data import RefineData
from distill3d.train.samples import Batch
from distill3d.train.students import predict
from distill3d.train.validate import relative_depth_error, rotation_errors
from distill3d.types import Prediction, to_device

MAPS = "before_after.safetensors"
"""In the folder of pictures: photos, teacher's depth, depth before and after, of the last validation."""


@dataclass(frozen=True)
class _Scored:
    scores: Mapping[str, float]
    depths: list[Float[Tensor, "height width"]]
    """Of the photos that are drawn."""


class RefineWatch:
    """Scores an adapted network beside its frozen base, on samples that are not trained on."""

    def __init__(self, data: RefineData, base: Base, config: RefineConfig) -> None:
        self._data, self._base, self._config = data, base, config
        self._of_base: _Scored | None = None

    @property
    def has_any(self) -> bool:
        """Whether anything is held out."""
        return self._data.watched_photos is not None or self._data.watched_replay is not None

    @torch.no_grad()
    def look(
        self, model: nn.Module, device: torch.device, dtype: torch.dtype | None, pictures: Path, step: int
    ) -> Seen:
        """Score the network and, once a process, its base; draw depth before and after.

        Scores: `photo_depth_rel` and `photo_boundary_f1` (radius 1) against the teacher, `feature_norm` and
        `feature_norm_pre` on held-out photos; `replay_depth_rel`, `replay_points_error` (one scale a sample, over the
        mean distance) and `replay_rotation_deg` on held-out scenes. Those of the base end in `_base`.
        """
        if self._of_base is None:
            with adapters_off(model):
                self._of_base = self._score(model, device, dtype)
        after = self._score(model, device, dtype)
        scores = {**after.scores, **{f"{name}_base": value for name, value in self._of_base.scores.items()}}
        return Seen(scores, self._draw(self._of_base.depths, after.depths, pictures, step))

    def _score(self, model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> _Scored:
        sums: dict[str, list[float]] = {}
        depths: list[Tensor] = []

        def note(values: Mapping[str, float]) -> None:
            for name, value in values.items():
                if math.isfinite(value):
                    sums.setdefault(name, []).append(value)

        def predicted(batch: Batch) -> Prediction:
            images = batch.views.images.to(device)
            found = predict(model, images, seed=batch.seed, dtype=dtype, head_chunk=self._config.head_chunk)
            return to_device(found, "cpu")

        for batch in _some(self._data.watched_photos, self._config.validation.groups):
            with EncoderWatch(encoder_of(model, self._base)) as watch:
                prediction = predicted(batch)
            depth = view_depth(prediction, self._base)[0]
            note(photo_scores(depth[0, 0], camera_points(batch.target)[0, 0, ..., 2], batch.valid[0, 0]))
            note({name: float(value) for name, value in watch.norms().items()})
            if len(depths) < self._config.validation.pictures:
                depths.append(depth[0, 0])
        angles: list[Tensor] = []
        for batch in _some(self._data.watched_replay, self._config.validation.groups):
            prediction = predicted(batch)
            note(scene_scores(prediction, batch, self._base))
            angles.append(rotation_errors(prediction, batch.target, batch.valid))
        scores = {name: sum(values) / len(values) for name, values in sums.items()}
        if angles and torch.cat(angles).numel():
            scores["replay_rotation_deg"] = math.degrees(torch.cat(angles).median().item())
        return _Scored(scores, depths)

    def _draw(self, before: list[Tensor], after: list[Tensor], pictures: Path, step: int) -> list[Path]:
        """One picture of all drawn photos, and their maps for the report."""
        maps: dict[str, Tensor] = {}
        rows: list[BeforeAfter] = []
        batches = _some(self._data.watched_photos, len(after))
        for batch, first, last in zip(batches, before, after, strict=True):
            truth = camera_points(batch.target)[0, 0, ..., 2]
            mask = batch.valid[0, 0] & (truth > 0)
            if not mask.any():
                continue
            first, last = (depth * (truth[mask] / depth[mask].clamp(min=1e-6)).median() for depth in (first, last))
            row = BeforeAfter(batch.views.images[0, 0], truth, first, last, mask)
            maps |= {f"{len(rows)}.{name}": value.contiguous() for name, value in row._asdict().items()}
            rows.append(row)
        if not rows:
            return []
        path = pictures / f"step-{step:07d}.png"
        draw_before_after(path, rows, f"{self._config.base}, step {step}")
        atomic_write_bytes(pictures / MAPS, safetensors.torch.save(maps))
        return [path]


def photo_scores(
    depth: Float[Tensor, "height width"], truth: Float[Tensor, "height width"], valid: Bool[Tensor, "height width"]
) -> dict[str, float]:
    """`photo_depth_rel` (medians matched) and `photo_boundary_f1` (radius 1) of one view; NaN where unknown."""
    use = valid & (truth > 0)
    ours, theirs, mask = (side[None, None] for side in (depth, truth, use))
    return {
        "photo_depth_rel": float(relative_depth_error(ours, theirs, mask)),
        "photo_boundary_f1": boundary_f1(depth.double().numpy(), truth.double().numpy(), use.numpy()),
    }


def scene_scores(prediction: Prediction, batch: Batch, base: Base) -> dict[str, float]:
    """`replay_depth_rel` and `replay_points_error` of one sample."""
    depth = view_depth(prediction, base)[0]
    seen = depth.shape[1]
    truth = camera_points(batch.target)[:, :seen, ..., 2]
    scores = {"replay_depth_rel": float(relative_depth_error(depth, truth, batch.valid[:, :seen]))}
    if batch.target.pointmap_world is not None:
        maps = (world_points(prediction, base), batch.target.pointmap_world)
        points, world = (side[0].double().numpy() for side in maps)
        scores["replay_points_error"] = point_scores(points, world, batch.valid[0].numpy(), align="scale").relative
    return scores


def camera_points(target: Prediction) -> Float[Tensor, "batch views height width 3"]:
    """A teacher's points in each view's camera; with depth alone, straight ahead (then normals mean nothing).

    Raises:
        ConfigError: it has neither.
    """
    if target.pointmap_camera is not None:
        return target.pointmap_camera
    if target.depth is None:
        raise ConfigError("The teacher gives neither camera points nor depth. Use a monocular teacher, e.g. moge.")
    flat = torch.zeros_like(target.depth)
    return torch.stack([flat, flat, target.depth], dim=-1)


def _some(batches: NumberedBatches | None, count: int) -> list[Batch]:
    return [] if batches is None else [batches[number] for number in range(min(len(batches), count))]
