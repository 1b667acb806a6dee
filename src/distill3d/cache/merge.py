"""Several caches of one kind as one."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill3d.cache import format as layout
from distill3d.cache.blob import Encoded, unpack_blob
from distill3d.cache.packed import PackedSample
from distill3d.cache.reader import CacheReader
from distill3d.cache.writer import CacheWriter
from distill3d.errors import CacheError


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge did."""

    num_samples: int
    """In the merged cache."""
    num_copied: int
    """By this call; the rest was there."""
    num_repeated: int
    """In more than one of the parts, with the same labels."""


def merge_caches(
    parts: Sequence[str | Path],
    out: str | Path,
    *,
    keys: Sequence[str] | None = None,
    resume: bool = False,
    advance: Callable[[int], object] = lambda samples: None,
) -> Merged:
    """Copy the samples of all parts into one cache. Blobs are copied, never encoded again, and checked on the way.

    With `keys` in the order of one run over everything, the outcome is that run's cache, byte for byte; without, the
    samples follow each other part by part, in the order in which each part was written. So parts that are consecutive
    stretches of a run also give the run's cache.

    Args:
        parts: caches made with the same settings.
        out: folder of the merged cache.
        keys: the samples to copy, in order; one that no part has is passed over.
        resume: the merged cache may have been begun.
        advance: told the number of samples that are done, as they are.

    Raises:
        CacheError: other settings, a damaged blob, or a sample of which two parts tell different things.
        OutputError: the disk is full or refuses.
    """
    readers = [CacheReader(part) for part in parts]
    if not readers:
        raise CacheError("there is nothing to merge; name at least one cache")
    for reader in readers[1:]:
        layout.require_same_header(readers[0].path, readers[0].header, reader.header)
    owners: dict[str, CacheReader] = {}
    repeated: set[str] = set()
    for reader in readers:
        for key in reader.keys_as_written():
            if key not in owners:
                owners[key] = reader
            elif _checksums(owners[key], key) != _checksums(reader, key):
                raise CacheError(
                    f"sample {key} is in {owners[key].path} and in {reader.path} with different content. "
                    "They were not made from the same photos by the same teacher; merge only one of them."
                )
            else:
                repeated.add(key)
    wanted = list(owners) if keys is None else [key for key in dict.fromkeys(keys) if key in owners]
    copied = 0
    with CacheWriter(out, codec=readers[0].header.codec, header=readers[0].header, resume=resume) as writer:
        for key in wanted:
            if not writer.has(key):
                writer.add_packed(copy_sample(owners[key], key))
                copied += 1
            advance(1)
        for failure in (failure for reader in readers for failure in reader.failures()):
            if failure["key"] not in owners:
                writer.skip(failure["key"], failure["reason"])
        return Merged(num_samples=len(writer), num_copied=copied, num_repeated=len(repeated))


def copy_sample(reader: CacheReader, key: str) -> PackedSample:
    """A sample as it is stored, for a writer of the same kind of cache.

    Raises:
        CacheError: no such sample, or a blob is damaged.
    """
    num_views, height, width = reader.shape(key)
    labels = [reader.blob(key, view, "label") for view in range(num_views)]
    return PackedSample(
        key=key,
        height=height,
        width=width,
        labels=tuple(Encoded(data=data, from_similarity=_has_similarity(data)) for data in labels),
        images=tuple(reader.blob(key, view, "image") for view in range(num_views)),
        info=json.dumps(reader.info(key), sort_keys=True),
    )


def _checksums(reader: CacheReader, key: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    entry = reader.entry(key)
    return entry.label_crc, entry.image_crc


def _has_similarity(label: bytes) -> bool:
    return "similarity.scale" in unpack_blob(label).arrays
