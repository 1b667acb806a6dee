"""Reading a cache: any views of any sample, without the others, from any number of threads and processes."""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from distill3d.cache import format as layout
from distill3d.cache.codec import get_codec
from distill3d.cache.index import SampleEntry, read_committed
from distill3d.cache.on_device import decode_on
from distill3d.cache.record import join_images, join_sample, stack_views, unpack_image
from distill3d.cache.remote import LocalCopy, RemoteShards, as_url, is_url
from distill3d.cache.shards import LocalShards, Shards
from distill3d.cache.similarity import ROTATION, SCALE, TRANSLATION
from distill3d.errors import CacheError
from distill3d.geometry.align import Similarity
from distill3d.types import Prediction, Views

_KINDS = ("label", "image")


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

    Threads may share it, processes may fork it or be sent it. With `check`, every blob is compared with its checksum
    when it is read. A `path` like s3://bucket/cache is read through fsspec, with `storage_options` for its file system
    and a copy of what was read on this machine (`local_copy`).

    Raises:
        CacheError: no cache there, damaged, or from another version.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        check: bool = True,
        local_copy: LocalCopy | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self._folder = self.path
        self._shards: Shards
        if is_url(path):
            self._shards = RemoteShards(str(path), local_copy, dict(storage_options or {}))
            self._folder = self._shards.fetch_small_files()
        else:
            self._shards = LocalShards(self.path)
        self.header = layout.read_header(self._folder)
        self._codec = get_codec(self.header.codec, self.header.codec_settings)
        self._index = read_committed(self._folder)
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
        entry = self.entry(key)
        return entry.num_views, entry.height, entry.width

    def keys_as_written(self) -> tuple[str, ...]:
        """Every committed sample, in the order in which they were added."""
        places = zip(self._index.column("shard").tolist(), self._index.column("sample_offset").tolist(), strict=True)
        return tuple(key for _, key in sorted(zip(places, self._index.keys, strict=True)))

    def blob(self, key: str, view: int, kind: Literal["label", "image"]) -> bytes:
        """A blob as it is stored, compared with its checksum.

        Raises:
            CacheError: no such sample, or the blob is damaged.
        """
        return self._read(self.entry(key), view, kind, check=True)

    def entry(self, key: str) -> SampleEntry:
        """Where the blobs of a sample are.

        Raises:
            CacheError: no such sample.
        """
        if key not in self._index:
            raise CacheError(f"{self.path} has no sample {key!r}; it has {len(self)} samples, see keys()")
        return self._index.entry(self._index.row(key))

    def info(self, key: str) -> dict[str, Any]:
        """What the maker of the sample kept with it, without reading the sample."""
        found: dict[str, Any] = json.loads(self.entry(key).info)
        return found

    def load(self, key: str, views: Sequence[int] | None = None, *, device: torch.device | str = "cpu") -> CachedSample:
        """The given views of a sample, in the given order; all of them by default. Only their blobs are read.

        For another `device` than the CPU, labels of codec `compact` cross to it packed and are decoded there.

        Raises:
            CacheError: no such sample or view, or a damaged blob.
        """
        entry = self.entry(key)
        chosen = list(range(entry.num_views) if views is None else views)
        if not chosen or min(chosen) < 0 or max(chosen) >= entry.num_views:
            raise CacheError(f"sample {key} has views 0 to {entry.num_views - 1}; asked for {chosen}")
        count = len(chosen)
        images = join_images((self._read(entry, view, "image") for view in chosen), count)
        blobs = (self._read(entry, view, "label") for view in chosen)
        device = torch.device(device)
        if device.type != "cpu" and self.header.codec == "compact":
            stacked = {name: value[None] for name, value in decode_on(device, list(blobs)).items()}
        else:
            stacked = stack_views(map(self._codec.decode, blobs), count)
            stacked = {name: value.to(device) for name, value in stacked.items()}
        images = images.to(device)
        found, prediction = join_sample(images, stacked)
        similarity = _similarity(stacked)
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
        return [item for item in layout.read_failures(self._folder) if item["key"] not in self._index]

    def verify(self, advance: Callable[[int], object] = lambda views: None) -> list[Damage]:
        """Read and decode everything, and list what is not what was written; an empty list is a sound cache.

        Args:
            advance: told the number of views after each sample.
        """
        damaged: list[Damage] = []
        for row in range(len(self._index)):
            entry = self._index.entry(row)
            for kind, view in [*((kind, view) for view in range(entry.num_views) for kind in _KINDS), ("sample", 0)]:
                try:
                    data = self._read(entry, view, kind, check=True)
                    if kind == "label":
                        self._codec.decode(data)
                    elif kind == "image":
                        unpack_image(data)
                except CacheError as error:
                    damaged.append(Damage(key=entry.key, blob=_blob_name(kind, view), reason=str(error)))
            advance(entry.num_views)
        return damaged

    def describe(self) -> dict[str, Any]:
        """The cache in a few numbers and words, ready for JSON."""
        views = int(self._index.column("num_views").sum())
        sizes = sorted(set(zip(*(self._index.column(name).tolist() for name in ("height", "width")), strict=True)))
        total = self._index.num_bytes
        return {
            "path": as_url(self.path) if is_url(self.path) else str(self.path),
            "format": self.header.format,
            "codec": self.header.codec,
            "codec_settings": dict(self.header.codec_settings),
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

    def _read(self, entry: SampleEntry, view: int, kind: str, check: bool | None = None) -> bytes:
        if kind == "sample":
            offset, size, crc = entry.sample_offset, entry.sample_size, entry.sample_crc
        else:
            offset, size, crc = (getattr(entry, f"{kind}_{name}")[view] for name in ("offset", "size", "crc"))
        data = self._shards.read(entry.shard, offset, size)
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


def _similarity(stacked: Mapping[str, Tensor]) -> Similarity | None:
    if SCALE not in stacked:
        return None
    return Similarity(scale=stacked[SCALE], rotation=stacked[ROTATION], translation=stacked[TRANSLATION])


def _poses(similarity: Similarity) -> Tensor:
    """Cameras in units of the world map: its scale is not part of a pose."""
    pose = torch.eye(4, device=similarity.scale.device).repeat(*similarity.scale.shape, 1, 1)
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
        if points is not None and not _all_finite(points):
            valid &= points.isfinite().all(dim=-1)
    for name in ("depth", "confidence_world", "confidence_camera", "confidence_depth"):
        values = getattr(prediction, name)
        if values is not None and not _all_finite(values):
            valid &= values.isfinite()
    return valid


def _all_finite(values: Tensor) -> bool:
    """A sum tells it at a tenth of the price of looking at each; one that overflows only costs the closer look."""
    return bool(values.sum().isfinite())
