"""From a cache to training batches. A batch is a function of its number alone, so workers and resume change nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distill3d.cache.reader import CachedSample, CacheReader
from distill3d.errors import ConfigError
from distill3d.memory import keep_freed_memory
from distill3d.train.augment import crop, draw_window, mirror
from distill3d.train.config import SamplingConfig
from distill3d.train.job import NumberedBatches
from distill3d.train.order import BatchOrder, Draw, seed_of
from distill3d.train.rebase import rebase, with_poses
from distill3d.train.stopping import outlive_stop_requests
from distill3d.types import Prediction, Views, collate

_LABELS = (
    "pointmap_world",
    "pointmap_camera",
    "depth",
    "normal",
    "confidence_world",
    "confidence_camera",
    "confidence_depth",
    "world_from_camera",
    "intrinsics",
)
_LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Photos, what the teacher says about them, and where it is to be believed."""

    views: Views
    target: Prediction
    """View 0 is the reference: the world maps are in its frame."""
    valid: Bool[Tensor, "batch views height width"]
    seed: int
    """For what the student draws itself (view ids, dropout)."""
    keys: tuple[str, ...]


@dataclass(frozen=True)
class _Stored:
    """A decoded group; what is kept is as small as it can be without losing a bit."""

    key: str
    images: Tensor  # (views, 3, height, width), uint8 where kept
    labels: dict[str, Tensor]  # (views, ...), float16 where that is exact
    valid: Tensor
    shared: dict[str, Tensor]  # of the photos: intrinsics, world_from_camera

    @property
    def num_bytes(self) -> int:
        return sum(value.nbytes for value in (self.images, self.valid, *self.labels.values(), *self.shared.values()))


class CacheDataset(Dataset[Batch]):
    """Batch number n of an endless row, made from the samples of a cache.

    Raises:
        ConfigError: the cache has no samples, or groups of fewer views than asked for.
    """

    def __init__(
        self,
        reader: CacheReader,
        keys: Sequence[str],
        config: SamplingConfig,
        *,
        views: int,
        batch: int,
        seed: int,
        augment: bool = True,
    ) -> None:
        """With `augment` off, every draw takes evenly spaced views, the first as reference, and colours as they are."""
        self._reader, self._keys, self._config = reader, tuple(keys), config
        self._views, self._seed, self._augment = views, seed, augment
        if not self._keys:
            raise ConfigError(f"{reader.path} has no samples to train on. Build the cache first, or hold back fewer.")
        shapes = [reader.shape(key) for key in self._keys]
        fewest, key = min((shape[0], key) for shape, key in zip(shapes, self._keys, strict=True))
        if fewest < views:
            raise ConfigError(
                f"views is {views}, but group {key} of {reader.path} has {fewest}. "
                f"Set views to {fewest} or less, or build the cache with larger groups."
            )
        self.order = BatchOrder([(height, width) for _, height, width in shapes], batch=batch, seed=seed)
        self._memory: dict[int, _Stored] = {}
        self._keep: bool | None = None

    def __len__(self) -> int:
        return self.order.per_epoch

    def __getitem__(self, number: int) -> Batch:
        drawn = self.order[number]
        seed = seed_of(self._seed, "batch", drawn.epoch, drawn.number)
        fewest = self._config.min_views
        num_views = self._views
        if fewest is not None and self._augment:
            generator = torch.Generator().manual_seed(seed)
            num_views = int(torch.randint(fewest, self._views + 1, (), generator=generator))
        samples = [self._draw(draw, drawn.epoch, num_views) for draw in drawn.draws]
        if self._augment:
            height, width = samples[0][2].shape[-2:]
            window = self._window((height, width), drawn.epoch, drawn.number)
            samples = [
                self._change(*sample, window, drawn.epoch, draw)
                for sample, draw in zip(samples, drawn.draws, strict=True)
            ]
        views, targets, valids = zip(*samples, strict=True)
        keys = tuple(self._keys[draw.index] for draw in drawn.draws)
        return Batch(views=collate(views), target=collate(targets), valid=torch.cat(valids), seed=seed, keys=keys)

    def _draw(self, draw: Draw, epoch: int, num_views: int) -> tuple[Views, Prediction, Tensor]:
        total = self._reader.shape(self._keys[draw.index])[0]
        if not self._augment:
            chosen = torch.linspace(0, total - 1, num_views).round().long() if num_views > 1 else torch.zeros(1).long()
            return _assemble(*self._load(draw.index, chosen), int(chosen[0]), None)
        generator = torch.Generator().manual_seed(seed_of(self._seed, "sample", epoch, draw.index, draw.repeat))
        if self._config.reference == "random":
            chosen = torch.randperm(total, generator=generator)[:num_views]
        else:
            others = torch.randperm(total - 1, generator=generator)[: num_views - 1] + 1
            chosen = torch.cat([torch.zeros(1, dtype=torch.long), others])
        jitter = None
        if self._config.color_jitter > 0:
            jitter = 1 + self._config.color_jitter * (2 * torch.rand(num_views, 3, generator=generator) - 1)
        return _assemble(*self._load(draw.index, chosen), int(chosen[0]), jitter)

    def _window(self, size: tuple[int, int], epoch: int, number: int) -> tuple[int, int]:
        """Of all views of a batch."""
        config = self._config
        if config.crop == 1 and config.aspect is None:
            return size
        return draw_window(
            size,
            share=config.crop,
            aspect=config.aspect,
            multiple=config.crop_multiple,
            generator=torch.Generator().manual_seed(seed_of(self._seed, "window", epoch, number)),
        )

    def _change(
        self, views: Views, target: Prediction, valid: Tensor, window: tuple[int, int], epoch: int, draw: Draw
    ) -> tuple[Views, Prediction, Tensor]:
        """Mirror a sample, or not, and cut a window from each of its views."""
        # Draws of their own: turning one of these on leaves views, reference and colours as they were.
        generator = torch.Generator().manual_seed(seed_of(self._seed, "change", epoch, draw.index, draw.repeat))
        if float(torch.rand((), generator=generator)) < self._config.flip:
            views, target, valid = mirror(views, target, valid)
        room = torch.tensor(valid.shape[-2:]) - torch.tensor(window)
        if room.any():
            places = torch.rand(valid.shape[1], 2, generator=generator)
            corners = [(row, column) for row, column in (places * (room + 1)).long().tolist()]
            views, target, valid = crop(views, target, valid, window, corners)
        return views, target, valid

    def _load(self, index: int, chosen: Tensor) -> tuple[_Stored, Tensor | slice]:
        """A group that has the chosen views, and their places in it: all of it if it is kept, else just those."""
        percentile = self._config.mask_percentile if self._augment else 0.0
        if self._keep is None:
            whole = _store(self._reader.load(self._keys[index]), percentile)
            in_worker = torch.utils.data.get_worker_info() is not None
            self._keep = not in_worker and whole.num_bytes * len(self._keys) <= self._config.memory_mb * 1e6
        if not self._keep:
            part = self._reader.load(self._keys[index], views=chosen.tolist())
            return _store(part, percentile, small=False), slice(None)
        if index not in self._memory:
            self._memory[index] = _store(self._reader.load(self._keys[index]), percentile)
        return self._memory[index], chosen


def batches_in_order(batches: NumberedBatches, numbers: Sequence[int], workers: int) -> Iterator[Any]:
    """The batches of the given numbers, read ahead by that many processes."""
    loader: DataLoader[Any] = DataLoader(
        batches,  # type: ignore[arg-type]  # it asks for no more than the two methods
        batch_size=None,
        sampler=list(numbers),
        num_workers=workers,
        worker_init_fn=_prepare_worker,
        # The loader draws a seed for its workers; nothing here uses it, but the global generator must not move.
        generator=torch.Generator(),
    )
    return iter(loader)


def _prepare_worker(worker: int) -> None:
    outlive_stop_requests(worker)
    keep_freed_memory()


def split_keys(keys: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Hold back a share of the keys, at least one if there are two: (to train on, held back), in their order.

    The choice depends on each key and the seed, not on the other keys.
    """
    if share <= 0 or len(keys) < 2:
        return list(keys), []
    ranked = sorted(keys, key=lambda key: seed_of(seed, "held-out", key))
    held = set(ranked[: min(len(keys) - 1, max(1, round(share * len(keys))))])
    return [key for key in keys if key not in held], [key for key in keys if key in held]


def _store(sample: CachedSample, percentile: float, *, small: bool = True) -> _Stored:
    """A group ready for use; `small` spends time to keep it in fewer bytes, and loses no bit."""
    prediction = with_poses(sample.prediction, sample.valid)
    labels = {name: value for name in _LABELS if (value := getattr(prediction, name)) is not None}
    views = sample.views
    shared = {
        name: value for name in ("intrinsics", "world_from_camera") if (value := getattr(views, name)) is not None
    }
    return _Stored(
        key=sample.key,
        images=(views.images[0] * 255).round().to(torch.uint8) if small else views.images[0],
        labels={name: _small(value[0]) if small else value[0] for name, value in labels.items()},
        valid=_trusted(prediction, sample.valid, percentile)[0],
        shared={name: value[0] for name, value in shared.items()},
    )


def _small(value: Tensor) -> Tensor:
    half = value.half()
    return half if torch.equal(half.to(value.dtype), value) else value


def _trusted(prediction: Prediction, valid: Tensor, percentile: float) -> Tensor:
    """Leave out each view's least confident pixels, by the world map's confidence or else the local map's."""
    confidence = prediction.confidence_camera if prediction.confidence_world is None else prediction.confidence_world
    if confidence is None or percentile <= 0:
        return valid
    valid = valid.clone()
    for mask, values in zip(valid.flatten(0, 1), confidence.flatten(0, 1), strict=True):
        count = int(mask.sum())
        if count:
            bound = values[mask].kthvalue(min(count, 1 + int(count * percentile / 100))).values
            mask &= values >= bound
    return valid


def _assemble(
    stored: _Stored, chosen: Tensor | slice, reference: int, jitter: Tensor | None
) -> tuple[Views, Prediction, Tensor]:
    """The views at the chosen places; the first of them is view `reference` of the group."""
    images = stored.images[chosen]
    if images.dtype == torch.uint8:
        images = images.float().div_(255)
    if jitter is not None:
        images = jitter_colors(images, jitter)
    labels: dict[str, Any] = {name: value[chosen].float()[None] for name, value in stored.labels.items()}
    target = Prediction(**labels)
    if target.world_from_camera is not None:
        target = rebase(target, target.world_from_camera, target.world_from_camera[:, 0])
    elif reference != 0:
        raise ConfigError(
            f"group {stored.key} has no poses, so view {reference} cannot be its reference. "
            "Set data.reference to first."
        )
    shared: dict[str, Any] = {name: value[chosen].float()[None] for name, value in stored.shared.items()}
    views = Views(images=images[None], **shared)
    if views.world_from_camera is not None:
        poses = views.world_from_camera
        views = replace(views, world_from_camera=torch.linalg.inv(poses[:, :1]) @ poses)
    return views, target, stored.valid[chosen][None]


def jitter_colors(
    images: Float[Tensor, "views 3 height width"], jitter: Float[Tensor, "views 3"]
) -> Float[Tensor, "views 3 height width"]:
    """Scale brightness, contrast and saturation of each view by the three factors of its row."""
    brightness, contrast, saturation = (column[:, None, None] for column in jitter.T)
    mix = saturation * torch.eye(3) + (1 - saturation) * _LUMA.expand(3, 3)  # (views, 3, 3)
    flat = images.flatten(2)
    offset = (1 - contrast) * (_LUMA @ flat.mean(dim=2).T)[:, None, None]
    changed = torch.baddbmm(brightness * offset, brightness * contrast * mix, flat)
    return changed.clamp_(0, 1).reshape(images.shape)
