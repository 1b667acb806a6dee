"""From a batch of view groups to the bytes of their samples: load the photos, ask the teacher, pack the labels.

The three steps are apart so that `pipeline` can overlap them; `LabelMaker.make` is the plain way through all of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from distill3d.cache.codec import Codec
from distill3d.cache.packed import PackedSample, pack_sample
from distill3d.data.fit import ImageFit, Size, canvas_size
from distill3d.data.groups import load_group
from distill3d.data.sampling import ViewGroup
from distill3d.data.table import Manifest
from distill3d.data.video import VideoPool
from distill3d.errors import ConfigError, DataError
from distill3d.teachers import SceneTeacher, Teacher
from distill3d.teachers.mask import ConfidenceMask, usable_pixels
from distill3d.types import Prediction, Views, collate, map_tensors

_MAPS = ("pointmap_world", "pointmap_camera", "normal", "depth", "confidence_world", "confidence_camera")


@dataclass(frozen=True)
class Batch:
    """Groups of equal size that pass through the teacher together; always the same ones, whatever is in the cache."""

    groups: tuple[ViewGroup, ...]
    missing: frozenset[str]
    """Keys of those that are wanted; the others are only company."""

    @property
    def num_views(self) -> int:
        """Views that are wanted."""
        return sum(len(group.frames) for group in self.groups if group.key in self.missing)


@dataclass(frozen=True)
class Made:
    """What came of one group: its sample, or the reason why there is none."""

    group: ViewGroup
    sample: PackedSample | None
    problem: str = ""


@dataclass(frozen=True)
class Loaded:
    """The photos of a batch, and the groups that have none."""

    batch: Batch
    views: tuple[tuple[ViewGroup, Views], ...]
    failed: tuple[Made, ...]


@dataclass(frozen=True)
class Labelled:
    """The labels of a batch, each a batch of 1 on the CPU, and the groups that have none."""

    batch: Batch
    labels: tuple[tuple[ViewGroup, Views, Prediction], ...]
    failed: tuple[Made, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How samples are made, besides the teacher."""

    fit: ImageFit
    codec: Codec
    jpeg_quality: int | None = None
    """Of the photos; they are stored without loss if `None`."""
    mask: ConfidenceMask = field(default_factory=ConfidenceMask)
    canvas: Size | None = None
    """(height, width) of all groups; otherwise each gets the smallest that fits."""


class LabelMaker:
    """Makes samples. `load` and `pack` may run in any thread, `ask` in one at a time."""

    def __init__(self, teacher: Teacher, manifest: Manifest, recipe: Recipe) -> None:
        self.teacher, self.manifest, self.recipe = teacher, manifest, recipe
        self.has_videos = "image_store" in manifest.table.column_names
        """Then `load` belongs to one thread as well, and likes the order of the groups."""
        self._videos = VideoPool()

    def make(self, batch: Batch) -> list[Made]:
        """One `Made` for every group that is missing, in the order of the batch."""
        return self.pack(self.ask(self.load(batch)))

    def load(self, batch: Batch) -> Loaded:
        """Read the photos, of all members: a teacher may answer a shorter batch with other bits."""
        views: list[tuple[ViewGroup, Views]] = []
        failed: list[Made] = []
        for group in batch.groups:
            try:
                loaded = load_group(
                    self.manifest, group, self.recipe.fit, canvas=self.recipe.canvas, videos=self._videos
                )
            except DataError as error:
                failed.append(Made(group, None, str(error)))
            else:
                views.append((group, loaded))
        return Loaded(batch, tuple(views), tuple(failed))

    def ask(self, loaded: Loaded) -> Labelled:
        """Show the photos to the teacher.

        Raises:
            ConfigError: the device has too little memory for the batch.
        """
        labels: list[tuple[ViewGroup, Views, Prediction]] = []
        failed = list(loaded.failed)
        for members in _alike(loaded.views, one_by_one=isinstance(self.teacher, SceneTeacher)):
            try:
                found = self._predict(members)
            except DataError as error:
                # What these views lack (depth, poses), they all lack.
                failed += [Made(group, None, str(error)) for group, _ in members]
                continue
            labels += [(group, views, _row(found, row)) for row, (group, views) in enumerate(members)]
        return Labelled(loaded.batch, tuple(labels), tuple(failed))

    def pack(self, labelled: Labelled) -> list[Made]:
        """Mask, judge and encode the labels."""
        made = {item.group.key: item for item in labelled.failed}
        for group, views, prediction in labelled.labels:
            if group.key in labelled.batch.missing:
                made[group.key] = self._pack(group, views, prediction)
        return [made[group.key] for group in labelled.batch.groups if group.key in labelled.batch.missing]

    def close(self) -> None:
        """Close the videos."""
        self._videos.close()

    def _predict(self, members: Sequence[tuple[ViewGroup, Views]]) -> Prediction:
        if isinstance(self.teacher, SceneTeacher):
            ((group, views),) = members
            return self.teacher.predict_group(views, self.manifest, group, self.recipe.fit)
        together = collate([views for _, views in members])
        try:
            return map_tensors(self.teacher.predict(together), lambda tensor: tensor.cpu())
        except torch.OutOfMemoryError as error:
            shape = "x".join(map(str, together.images.shape))
            raise ConfigError(
                f"{self.teacher.name} needs more memory than the device has for images of {shape}. Use a smaller "
                "--batch, fewer --views or a smaller --fit.long-side."
            ) from error

    def _pack(self, group: ViewGroup, views: Views, prediction: Prediction) -> Made:
        prediction = self.recipe.mask.apply(views, prediction)
        if problem := _find_problem(views, prediction):
            return Made(group, None, problem)
        info = {"scene": group.scene, "frames": list(group.frames)}
        sample = pack_sample(
            self.recipe.codec, group.key, views, prediction, info, jpeg_quality=self.recipe.jpeg_quality
        )
        return Made(group, sample)


Engine = Callable[[LabelMaker, Iterable[Batch]], Iterator[list[Made]]]
"""Carries out `LabelMaker.make` for every batch, somewhere, and gives the results in the order of the batches."""


def one_by_one(maker: LabelMaker, batches: Iterable[Batch]) -> Iterator[list[Made]]:
    """The engine without any overlap."""
    return map(maker.make, batches)


def make_batches(
    manifest: Manifest,
    groups: Sequence[ViewGroup],
    recipe: Recipe,
    batch_size: int,
    has: Callable[[str], bool] = lambda key: False,
) -> Iterator[Batch]:
    """Neighbours of equal size, up to `batch_size`; those of which nothing is missing (see `has`) are left out."""
    members: list[ViewGroup] = []
    shape: tuple[int, Size] | None = None

    def batch() -> Iterator[Batch]:
        if missing := frozenset(group.key for group in members if not has(group.key)):
            yield Batch(tuple(members), missing)

    for group in groups:
        found = (len(group.frames), recipe.canvas or _canvas(manifest, group, recipe.fit))
        if found != shape or len(members) == batch_size:
            yield from batch()
            members = []
        shape = found
        members.append(group)
    yield from batch()


def _canvas(manifest: Manifest, group: ViewGroup, fit: ImageFit) -> Size:
    rows = [manifest.row(group.scene, frame) for frame in group.frames]
    return canvas_size([(row.height, row.width) for row in rows], fit)


def _alike(loaded: Sequence[tuple[ViewGroup, Views]], *, one_by_one: bool) -> Iterator[list[tuple[ViewGroup, Views]]]:
    """Groups of which the same things are known, so that they fit into one batch; or every group alone."""
    alike: dict[Any, list[tuple[ViewGroup, Views]]] = {}
    for group, views in loaded:
        kind = group if one_by_one else tuple(value is not None for value in vars(views).values())
        alike.setdefault(kind, []).append((group, views))
    yield from alike.values()


def _row(batch: Prediction, row: int) -> Prediction:
    return map_tensors(batch, lambda tensor: tensor[row : row + 1])


def _find_problem(views: Views, prediction: Prediction) -> str | None:
    """Why these labels cannot be taught, if so."""
    usable = usable_pixels(views, prediction)
    if not usable.any():
        return "the teacher leaves no usable pixel"
    for name in _MAPS:
        values = getattr(prediction, name)
        if values is None:
            continue
        finite = values.isfinite()
        if finite.ndim == 5:
            finite = finite.all(dim=-1)
        wrong = int((usable & ~finite).sum())
        if wrong:
            return f"the teacher's {name} is not finite at {wrong} of {int(usable.sum())} usable pixels"
    return None
