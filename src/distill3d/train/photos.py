"""Photos straight from the disk, for a teacher that looks at them while training: batches without labels."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from distill3d.data.fit import ImageFit, canvas_size
from distill3d.data.groups import load_group
from distill3d.data.manifest import Manifest
from distill3d.data.sampling import ViewGroup
from distill3d.errors import DataError
from distill3d.teachers import Teacher
from distill3d.train.order import BatchOrder, Draw, seed_of
from distill3d.train.samples import Batch, jitter_colors
from distill3d.types import Prediction, Views, collate, map_tensors

logger = logging.getLogger(__name__)

MOST_UNREADABLE = 20
"""So many unreadable photos in a row end the run: the disk is gone, not a photo."""


class PhotoBatches(Dataset[Batch]):
    """Batch number n of an endless row of single photos, all of one size.

    A photo that cannot be read is told of once, and its neighbour in the list takes its place: the batches stay a
    function of their number and of the files.
    """

    def __init__(
        self,
        manifest: Manifest,
        groups: Sequence[ViewGroup],
        fit: ImageFit,
        *,
        batch: int,
        seed: int,
        color_jitter: float = 0.0,
    ) -> None:
        """`groups`: of one frame each."""
        self._manifest, self._groups, self._fit = manifest, tuple(groups), fit
        self._seed, self._color_jitter = seed, color_jitter
        rows = [manifest.row(group.scene, group.frames[0]) for group in self._groups]
        self._sizes = [canvas_size([(row.height, row.width)], fit) for row in rows]
        self.order = BatchOrder(self._sizes, batch=batch, seed=seed)
        self.unreadable: dict[str, str] = {}
        """Keys of photos that could not be read, and why; of this process."""

    def __len__(self) -> int:
        return self.order.per_epoch

    def __getitem__(self, number: int) -> Batch:
        drawn = self.order[number]
        found = [self._load(draw, drawn.epoch) for draw in drawn.draws]
        views, keys = collate([views for views, _ in found]), tuple(key for _, key in found)
        valid = torch.ones_like(views.images[:, :, 0], dtype=torch.bool) if views.valid is None else views.valid
        seed = seed_of(self._seed, "batch", drawn.epoch, drawn.number)
        return Batch(views=views, target=Prediction(), valid=valid, seed=seed, keys=keys)

    def identity(self) -> dict[str, Any]:
        """What must be the same for the batches to be the same."""
        listed = "\n".join(group.key for group in self._groups)
        return {"photos": len(self._groups), "keys": blake2b(listed.encode(), digest_size=8).hexdigest()}

    def _load(self, draw: Draw, epoch: int) -> tuple[Views, str]:
        size = self._sizes[draw.index]
        alike = [index for index, other in enumerate(self._sizes) if other == size]
        start = alike.index(draw.index)
        for step in range(min(len(alike), MOST_UNREADABLE)):
            group = self._groups[alike[(start + step) % len(alike)]]
            try:
                views = load_group(self._manifest, group, self._fit, canvas=size)
            except DataError as error:
                if group.key not in self.unreadable:
                    logger.warning("photo left out: %s", error)
                    self.unreadable[group.key] = str(error)
                continue
            images = views.images
            if self._color_jitter > 0:
                generator = torch.Generator().manual_seed(seed_of(self._seed, "sample", epoch, draw.index, draw.repeat))
                jitter = 1 + self._color_jitter * (2 * torch.rand(1, 3, generator=generator) - 1)
                images = jitter_colors(images[0], jitter)[None]
            return Views(images=images, valid=views.valid), group.key
        raise DataError(
            f"{MOST_UNREADABLE} photos in a row cannot be read, the last because: {self.unreadable[group.key]} "
            "Check the disk, or build the manifest again."
        )


def ask(teacher: Teacher, views: Views, valid: Tensor) -> tuple[Prediction, Tensor]:
    """What a teacher says of some photos, where they are, and where it is to be believed.

    Its own mask leaves out sky, and what lies behind the camera.
    """
    said = map_tensors(teacher.predict(views), lambda tensor: tensor.to(valid.device))
    return said, valid if said.valid is None else valid & said.valid


class LabelledPhotos(Dataset[Batch]):
    """Some photos one by one, with what their teacher says: each is asked about once and kept."""

    def __init__(self, photos: PhotoBatches, teacher: Teacher, most: int) -> None:
        """`photos`: in batches of 1; `most`: so many are looked at."""
        self._photos, self._teacher, self._length = photos, teacher, min(most, len(photos))
        self._known: dict[int, Batch] = {}

    def __len__(self) -> int:
        return self._length

    @torch.no_grad()
    def __getitem__(self, number: int) -> Batch:
        if number not in self._known:
            batch = self._photos[number]
            said, valid = ask(self._teacher, batch.views, batch.valid)
            self._known[number] = replace(batch, target=said, valid=valid)
        return self._known[number]


def single_photos(manifest: Manifest, split: str | None = None) -> list[ViewGroup]:
    """Every frame of a manifest (of a split) as a group of its own."""
    return [ViewGroup(scene, (frame,)) for scene in manifest.scenes(split) for frame in manifest.frames(scene, split)]
