"""Reading a cache: any views of any sample, without the others, from any number of threads and processes."""

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from distill3d.cache import format as layout
from distill3d.cache.blob import Array
from distill3d.cache.codec import get_codec
from distill3d.cache.index import SampleEntry, read_committed
from distill3d.cache.record import image_from_png, join_sample
from distill3d.cache.similarity import ROTATION, SCALE, TRANSLATION
from distill3d.errors import CacheError
from distill3d.geometry.align import Similarity
from distill3d.types import Prediction, Views


@dataclass(frozen=True, kw_only=True)
class CachedSample:
    """Some views of a sample with their labels, as a batch of 1."""

    key: str
    views: Views
    """Without the data set's own depth, which the cache does not hold."""
    prediction: Prediction
    """In the world frame of the whole sample, whichever views were asked for. `world_from_camera` comes from the
    similarities where the teacher gave none."""
    valid: Bool[Tensor, "1 views height width"]
    """Part of the photo, trusted by the teacher, and every map finite."""
    similarity: Similarity | None
    """From each local map to the world map [1 views]; `None` unless every view asked for has one."""
    info: Mapping[str, Any]
    """What the maker of the sample kept with it (scene, frames)."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A blob that is not what was written."""

    key: str
    blob: str
    reason: str


class CacheReader:
    """Finds and decodes samples. Keys are sorted; a cache still being written shows what was committed on opening.

    Keeps no file open, so that it can be shared by threads, forked, and sent to worker processes. With `check`, every
    blob is compared with its checksum when it is read.

    Raises:
        CacheError: no cache there, damaged, or from another version.
    """

    def __init__(self, path: str | Path, *, check: bool = True) -> None:
        self.path = Path(path)
        self.header = layout.read_header(self.path)
        self._codec = get_codec(self.header.codec, self.header.codec_settings)
        self._index = read_committed(self.path)
        self._check = check

    def keys(self) -> tuple[str, ...]:
        """Every committed sample, sorted."""
        return tuple(self._index.keys)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: object) -> bool:
        return key in self._index

    def __getitem__(self, position: int) -> CachedSample:
        return self.load(self._index.keys[position])

    def __iter__(self) -> Iterator[CachedSample]:
        return (self.load(key) for key in self._index.keys)

    def shape(self, key: str) -> tuple[int, int, int]:
        """Views, height and width of a sample, without reading it."""
        entry = self._entry(key)
        return entry.num_views, entry.height, entry.width

    def info(self, key: str) -> dict[str, Any]:
        """What the maker of the sample kept with it, without reading the sample."""
        found: dict[str, Any] = json.loads(self._entry(key).info)
        return found

    def load(self, key: str, views: Sequence[int] | None = None) -> CachedSample:
        """The given views of a sample, in the given order; all of them by default. Only their blobs are read.

        Raises:
            CacheError: no such sample or view, or a damaged blob.
        """
        entry = self._entry(key)
        chosen = list(range(entry.num_views) if views is None else views)
        if not chosen or min(chosen) < 0 or max(chosen) >= entry.num_views:
            raise CacheError(f"sample {key} has views 0 to {entry.num_views - 1}; asked for {chosen}")
        parts: list[dict[str, Array]] = []
        images: list[Tensor] = []
        shard = self._open_shard(entry)
        try:
            for view in chosen:
                label = self._read(shard, entry, view, "label")
                image = self._read(shard, entry, view, "image")
                parts.append(self._codec.decode(label))
                images.append(image_from_png(image))
        finally:
            os.close(shard)
        found, prediction = join_sample(torch.stack(images)[None], parts)
        similarity = _join_similarity(parts)
        if similarity is not None and prediction.world_from_camera is None:
            prediction = replace(prediction, world_from_camera=_poses(similarity))
        return CachedSample(
            key=key,
            views=found,
            prediction=prediction,
            valid=_valid(found, prediction),
            similarity=similarity,
            info=json.loads(entry.info),
        )

    def failures(self) -> list[dict[str, str]]:
        """Samples that could not be made (`key`, `reason`) and are still missing."""
        return [item for item in layout.read_failures(self.path) if item["key"] not in self._index]

    def verify(self) -> list[Damage]:
        """Read everything, and list what differs from what was written; an empty list is a sound cache."""
        damaged: list[Damage] = []
        for row in range(len(self._index)):
            entry = self._index.entry(row)
            try:
                shard = self._open_shard(entry)
            except CacheError as error:
                damaged.append(Damage(key=entry.key, blob=layout.shard_name(entry.shard), reason=str(error)))
                continue
            try:
                blobs = [(kind, view) for view in range(entry.num_views) for kind in ("label", "image")]
                for kind, view in [*blobs, ("sample", 0)]:
                    try:
                        self._read(shard, entry, view, kind, check=True)
                    except CacheError as error:
                        damaged.append(Damage(key=entry.key, blob=_blob_name(kind, view), reason=str(error)))
            finally:
                os.close(shard)
        return damaged

    def describe(self) -> dict[str, Any]:
        """The cache in a few numbers and words, ready for JSON."""
        views = int(self._index.column("num_views").sum())
        sizes = sorted(set(zip(*(self._index.column(name).tolist() for name in ("height", "width")), strict=True)))
        total = self._index.num_bytes
        return {
            "path": str(self.path),
            "format": self.header.format,
            "codec": self.header.codec,
            "teacher": self.header.teacher,
            "weights_hash": self.header.weights_hash,
            "licence": self.header.licence,
            "samples": len(self._index),
            "views": views,
            "views_per_sample": sorted(set(self._index.column("num_views").tolist())),
            "sizes": [f"{height}x{width}" for height, width in sizes],
            "bytes": total,
            "bytes_per_view": round(total / views) if views else 0,
            "world_maps_as_similarity": int(self._index.column("num_similarities").sum()),
            "failures": len(self.failures()),
        }

    def _entry(self, key: str) -> SampleEntry:
        if key not in self._index:
            raise CacheError(f"{self.path} has no sample {key!r}; it has {len(self)} samples, see keys()")
        return self._index.entry(self._index.row(key))

    def _open_shard(self, entry: SampleEntry) -> int:
        path = self.path / layout.shard_name(entry.shard)
        try:
            return os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CacheError(f"cannot open {path} ({error.strerror}); restore it, or build the cache again") from None

    def _read(self, shard: int, entry: SampleEntry, view: int, kind: str, check: bool | None = None) -> bytes:
        if kind == "sample":
            offset, size, crc = entry.sample_offset, entry.sample_size, entry.sample_crc
        else:
            offset, size, crc = (getattr(entry, f"{kind}_{name}")[view] for name in ("offset", "size", "crc"))
        data = os.pread(shard, size, offset)
        where = f"sample {entry.key}, {_blob_name(kind, view)}, {layout.shard_name(entry.shard)}"
        if len(data) < size:
            raise CacheError(f"{where}: the shard ends after {len(data)} of {size} bytes; restore it or build it again")
        if (self._check if check is None else check) and zlib.crc32(data) != crc:
            raise CacheError(
                f"{where}: checksum {zlib.crc32(data):08x}, expected {crc:08x}; the disk changed it. "
                "Restore the shard, or build the cache again."
            )
        return data


def _blob_name(kind: str, view: int) -> str:
    return "sample.json" if kind == "sample" else f"{kind} of view {view}"


def _join_similarity(parts: Sequence[Mapping[str, Array]]) -> Similarity | None:
    if not all(SCALE in part for part in parts):
        return None
    stacked = {
        name: torch.from_numpy(np.stack([part[name] for part in parts])[None])
        for name in (SCALE, ROTATION, TRANSLATION)
    }
    return Similarity(scale=stacked[SCALE], rotation=stacked[ROTATION], translation=stacked[TRANSLATION])


def _poses(similarity: Similarity) -> Tensor:
    """Cameras in units of the world map: its scale is not part of a pose."""
    pose = torch.eye(4).repeat(*similarity.scale.shape, 1, 1)
    pose[..., :3, :3] = similarity.rotation.float()
    pose[..., :3, 3] = similarity.translation.float()
    return pose


def _valid(views: Views, prediction: Prediction) -> Bool[Tensor, "1 views height width"]:
    valid = torch.ones_like(views.images[:, :, 0], dtype=torch.bool)
    for mask in (views.valid, prediction.valid):
        if mask is not None:
            valid &= mask
    for name in ("pointmap_world", "pointmap_camera", "normal"):
        points = getattr(prediction, name)
        if points is not None:
            valid &= points.isfinite().all(dim=-1)
    for name in ("depth", "confidence_world", "confidence_camera", "confidence_depth"):
        values = getattr(prediction, name)
        if values is not None:
            valid &= values.isfinite()
    return valid
