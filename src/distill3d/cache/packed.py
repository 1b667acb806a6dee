"""A sample as the bytes that will be stored: made by any thread or machine, before it has a place in a shard."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill3d.cache import format as layout
from distill3d.cache.codec import Codec, Encoded
from distill3d.cache.index import SampleEntry
from distill3d.cache.record import pack_image, split_sample
from distill3d.errors import CacheError
from distill3d.types import Prediction, Views


@dataclass(frozen=True, kw_only=True)
class PackedSample:
    """All blobs of a sample; equal views and labels give equal bytes, so that making it twice does no harm."""

    key: str
    height: int
    width: int
    labels: tuple[Encoded, ...]
    images: tuple[bytes, ...]
    info: str
    """JSON that the maker of the sample wished to keep."""

    @property
    def num_views(self) -> int:
        """How many views it has."""
        return len(self.labels)

    @property
    def num_bytes(self) -> int:
        """Bytes of the labels and images."""
        return sum(len(label.data) for label in self.labels) + sum(map(len, self.images))


def pack_sample(
    codec: Codec,
    key: str,
    views: Views,
    prediction: Prediction,
    info: Mapping[str, Any] | None = None,
    *,
    jpeg_quality: int | None = None,
) -> PackedSample:
    """Encode one sample (a batch of 1); `info` is JSON to keep with it. Photos become PNG unless a quality is given.

    Raises:
        CacheError: the key is empty, or the labels do not fit the images.
    """
    if not key:
        raise CacheError("a sample needs a key that is not empty")
    labels = tuple(codec.encode(arrays) for arrays in split_sample(key, views, prediction))
    height, width = views.images.shape[-2:]
    return PackedSample(
        key=key,
        height=height,
        width=width,
        labels=labels,
        images=tuple(pack_image(image, jpeg_quality) for image in views.images[0]),
        info=json.dumps(dict(info or {}), sort_keys=True),
    )


def lay_out(sample: PackedSample, shard: int, start: int) -> tuple[SampleEntry, bytes]:
    """A sample as tar members, and the entry that finds its blobs in a shard of `start` bytes."""
    folder = layout.sample_folder(sample.key)
    members: list[bytes] = []
    found: list[tuple[int, int, int]] = []  # offset, size and checksum of each blob
    position = start

    def place(name: str, data: bytes) -> None:
        nonlocal position
        members.append(layout.tar_member(f"{folder}/{name}", data))
        found.append((position + layout.BLOCK, len(data), zlib.crc32(data)))
        position += len(members[-1])

    for view, (label, image) in enumerate(zip(sample.labels, sample.images, strict=True)):
        place(f"view-{view:03d}.labels", label.data)
        place(f"view-{view:03d}.{image_suffix(image)}", image)
    num_similarities = sum(label.from_similarity for label in sample.labels)
    summary = {
        "key": sample.key,
        "num_views": sample.num_views,
        "num_similarities": num_similarities,
        "height": sample.height,
        "width": sample.width,
    }
    # The last member, with the checksums of the others: it tells a reader of the bare shard that the sample is whole.
    checksums = {"label_crc": [blob[2] for blob in found[0::2]], "image_crc": [blob[2] for blob in found[1::2]]}
    text = json.dumps({**summary, **checksums, "info": json.loads(sample.info)}, sort_keys=True)
    place("sample.json", text.encode())
    label_offset, label_size, label_crc = zip(*found[:-1:2], strict=True)
    image_offset, image_size, image_crc = zip(*found[1::2], strict=True)
    sample_offset, sample_size, sample_crc = found[-1]
    entry = SampleEntry(
        key=sample.key,
        shard=shard,
        height=sample.height,
        width=sample.width,
        num_views=sample.num_views,
        num_similarities=num_similarities,
        info=sample.info,
        label_offset=label_offset,
        label_size=label_size,
        label_crc=label_crc,
        image_offset=image_offset,
        image_size=image_size,
        image_crc=image_crc,
        sample_offset=sample_offset,
        sample_size=sample_size,
        sample_crc=sample_crc,
    )
    return entry, b"".join(members)


def image_suffix(image: bytes) -> str:
    """What a stored photo is called, by its first bytes."""
    return "jpg" if image.startswith(b"\xff\xd8") else "png"
