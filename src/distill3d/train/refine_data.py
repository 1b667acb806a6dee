"""Where the batches of a refining run come from: photos with a monocular teacher, and views to replay."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill3d.cache.reader import CacheReader
from distill3d.data.fit import ImageFit
from distill3d.data.manifest import Manifest, build_manifest
from distill3d.errors import ConfigError
from distill3d.files import PathLike
from distill3d.teachers import Teacher
from distill3d.teachers.run import run_teacher
from distill3d.train.bases import Base
from distill3d.train.job import NumberedBatches
from distill3d.train.mixing import MixedBatches, Source
from distill3d.train.photos import LabelledPhotos, PhotoBatches, single_photos
from distill3d.train.refine_config import RefineConfig
from distill3d.train.resume import cache_identity
from distill3d.train.samples import CacheDataset, split_keys

logger = logging.getLogger(__name__)

PHOTOS = "photos"
REPLAY = "replay"


@dataclass(frozen=True, kw_only=True)
class RefineSources:
    """The data of a run, before it is opened. Photos come labelled from caches, or bare with an online teacher."""

    photo_caches: Sequence[PathLike] = ()
    """Caches of a monocular teacher; of groups of several views, a view is drawn each time."""
    photos: Manifest | None = None
    """Photos that the teacher looks at while training."""
    teacher: Teacher | None = None
    """Who looks at them."""
    fit: ImageFit | None = None
    """How they are brought to size."""
    replay_caches: Sequence[PathLike] = ()
    """Caches of exact labels of several views, e.g. of the ground-truth teacher on Hypersim and TartanAir."""
    validation_photos: PathLike | None = None
    """A cache of labelled photos to watch; None holds back a share of the photos."""
    validation_replay: PathLike | None = None
    """The same for views to replay."""


class RefineData:
    """The opened data: the mix to train on, what is watched, and what identifies both."""

    def __init__(self, sources: RefineSources, config: RefineConfig, base: Base) -> None:
        """Open everything and hold back what is watched.

        Raises:
            CacheError: a cache that cannot be read.
            ConfigError: there is nothing to learn from, or the views do not fit the network.
        """
        self.sources, self._config = sources, config
        mix = config.mix
        if base.max_views is not None and mix.replay_views > base.max_views:
            mix = replace(mix, replay_views=base.max_views)
            logger.info("%s sees %d views at a time: so many are replayed", config.base, base.max_views)
        self.mix = mix
        self.identity: dict[str, Any] = {}
        self.licences: list[str] = []
        watches = bool(config.validation.every_steps) and not config.overfit
        self.watched_photos: NumberedBatches | None = None
        self.watched_replay: NumberedBatches | None = None
        if watches:
            self.watched_photos = self._given(sources.validation_photos, 1)
            self.watched_replay = self._given(sources.validation_replay, mix.replay_views)
        self._hold_back = watches
        kinds: list[tuple[str, CacheDataset | PhotoBatches, int]] = []
        for number, path in enumerate(sources.photo_caches):
            kinds.append((PHOTOS, self._cached(path, f"photos{number}", 1, config.batch, PHOTOS), config.batch))
        if sources.photos is not None:
            kinds.append((PHOTOS, self._online(sources), config.batch))
        photos = sum(len(batches) for _, batches, _ in kinds)
        wanted = None if mix.photos_per_epoch is None else math.ceil(mix.photos_per_epoch / config.batch)
        share = 1.0 if not photos or wanted is None else min(1.0, photos / wanted)
        parts = [Source(name=f"{PHOTOS}{index}", batches=batches, per_epoch=_share(len(batches), photos, wanted))
                 for index, (_, batches, _) in enumerate(kinds)]  # fmt: skip
        for number, path in enumerate(sources.replay_caches):
            cached = self._cached(path, f"replay{number}", mix.replay_views, mix.replay_batch, REPLAY)
            count = max(1, round(share * mix.replay_per_epoch / mix.replay_batch))
            parts.append(Source(name=f"{REPLAY}{number}", batches=cached, per_epoch=count))
        if not parts:
            raise ConfigError("There is nothing to learn from. Give photos with a teacher, or a cache of them.")
        self.batches = MixedBatches(parts, seed=config.seed)

    def _cached(self, path: PathLike, name: str, views: int, batch: int, kind: str) -> CacheDataset:
        """A cache; without what is held back of it, where nothing else is watched of its kind."""
        config = self._config
        reader = CacheReader(path)
        keys = list(reader.keys())
        watched = f"watched_{kind}"
        if self._hold_back and getattr(self, watched) is None:
            keys, held = split_keys(keys, config.validation.held_out, config.seed)
            if held:
                setattr(self, watched, self._watching(reader, held, views))
        self.identity[name] = cache_identity(reader, keys)
        self.licences.append(f"labels of {reader.header.teacher} ({kind}): {reader.header.licence}")
        return CacheDataset(reader, keys, config.data, views=views, batch=batch, seed=config.seed)

    def _given(self, path: PathLike | None, views: int) -> CacheDataset | None:
        """A cache of its own to watch."""
        if path is None:
            return None
        reader = CacheReader(path)
        return self._watching(reader, list(reader.keys()), views)

    def _watching(self, reader: CacheReader, keys: list[str], views: int) -> CacheDataset:
        fewest = min(views, *(reader.shape(key)[0] for key in keys))
        seed = self._config.seed
        return CacheDataset(reader, keys, self._config.data, views=fewest, batch=1, seed=seed, augment=False)

    def _online(self, sources: RefineSources) -> PhotoBatches:
        if sources.teacher is None:
            raise ConfigError("Photos without labels need a teacher that looks at them. Name one, or give their cache.")
        assert sources.photos is not None
        config, teacher, fit = self._config, sources.teacher, sources.fit or ImageFit()
        groups = {group.key: group for group in single_photos(sources.photos)}
        if not groups:
            raise ConfigError(f"{sources.photos.root} has no photos to learn from.")
        keys = list(groups)
        if self._hold_back and self.watched_photos is None:
            keys, held = split_keys(keys, config.validation.held_out, config.seed)
            if held:
                watched = PhotoBatches(sources.photos, [groups[key] for key in held], fit, batch=1, seed=config.seed)
                self.watched_photos = LabelledPhotos(watched, teacher, config.validation.groups)
        found = PhotoBatches(
            sources.photos,
            [groups[key] for key in keys],
            fit,
            batch=config.batch,
            seed=config.seed,
            color_jitter=config.data.color_jitter,
        )
        self.identity["online"] = {**found.identity(), "teacher": teacher.name, "weights_hash": teacher.weights_hash}
        self.licences.append(f"labels of {teacher.name} (online): {teacher.licence}")
        return found


def cache_photos(
    photos: PathLike, teacher: Teacher, out: PathLike, *, fit: ImageFit, batch: int = 1, split: str | None = None
) -> Path:
    """Let a monocular teacher look once at every photo of a folder or manifest; goes on where it stopped.

    Raises:
        DataError: no usable photos.
        CacheError: `out` holds a cache of other photos, another teacher or another size.
        OutputError: it cannot be written.
    """
    manifest = as_manifest(photos)
    groups = single_photos(manifest, split)
    settings = {"policy": "single", "split": split}
    run_teacher(teacher, manifest, groups, out, fit=fit, resume=True, batch_size=batch, settings=settings)
    return Path(out)


def as_manifest(photos: PathLike) -> Manifest:
    """The manifest of a folder of photos, or the one of a file.

    Raises:
        DataError: there are none.
    """
    from distill3d.data.manifest import load_manifest

    path = Path(photos)
    return load_manifest(path) if path.suffix == ".parquet" else build_manifest(path)[0]


def _share(own: int, total: int, wanted: int | None) -> int:
    """Batches of one photo source in an epoch."""
    return own if wanted is None or wanted >= total else max(1, round(wanted * own / total))
