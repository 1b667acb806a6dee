"""What a cache looks like on disk: the names of its files, its header, and tar members.

cache/
  cache.json          the header: format number, codec, teacher, weights, licence, settings, seeds, image size
  shard-00000.tar     per sample and view the labels (`.labels`) and the image (`.png`, `.jpg`), then `sample.json`
  index.parquet       one row a sample: where its blobs lie, and their checksums
  journal.jsonl       samples committed since the index was written; absent in a finished cache
  failures.jsonl      samples that could not be made, and why
  writer.lock         held by the one process that writes
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from distill3d.errors import CacheError
from distill3d.files import write_json

FORMAT = 1
KNOWN_FORMATS = (1,)
MOST_TOLD = 5
"""Settings that an error lists before it only counts the rest."""
HEADER_NAME = "cache.json"
INDEX_NAME = "index.parquet"
JOURNAL_NAME = "journal.jsonl"
FAILURES_NAME = "failures.jsonl"
LOCK_NAME = "writer.lock"
BLOCK = 512
"""Tar counts in blocks of this many bytes."""
END_OF_TAR = bytes(2 * BLOCK)


@dataclass(frozen=True, kw_only=True)
class CacheHeader:
    """Everything that decides what the labels are; a run resumes only where all of it is the same."""

    teacher: str = "unknown"
    weights_hash: str | None = None
    """Of the teacher's weights; `None` for a teacher without weights."""
    licence: str = "unknown"
    """Of the labels: the teacher's weights and the photos decide it."""
    teacher_settings: Mapping[str, Any] = field(default_factory=dict)
    image_fit: Mapping[str, Any] = field(default_factory=dict)
    """How photos were brought to size, as a plain mapping."""
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the run: view groups, confidence mask and the like."""
    codec: str = "exact"
    codec_settings: Mapping[str, Any] = field(default_factory=dict)
    images: Literal["png", "jpeg"] = "png"
    """How photos are stored: PNG is exact to 8 bits, JPEG a third of its size and five times quicker to read."""
    jpeg_quality: int = 95
    """From 1 to 100, without chroma subsampling."""
    shard_bytes: int = 1 << 30
    """A shard that has grown to this size is followed by the next."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.images not in ("png", "jpeg"):
            raise CacheError(f"images is {self.images!r}; expected png or jpeg")
        if not 1 <= self.jpeg_quality <= 100:
            raise CacheError(f"jpeg_quality is {self.jpeg_quality}; expected 1 to 100")

    @property
    def photo_quality(self) -> int | None:
        """Of JPEG; `None` where photos are PNG."""
        return self.jpeg_quality if self.images == "jpeg" else None

    def plain(self) -> dict[str, Any]:
        """The header as JSON values; what JSON cannot hold exactly (tuples, paths) takes its nearest form."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self), sort_keys=True, default=str))
        return found


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"shard-{shard:05d}.tar"


def write_header(folder: Path, header: CacheHeader) -> None:
    """Write `cache.json`, whole or not at all."""
    write_json(folder / HEADER_NAME, header.plain())


def read_header(folder: Path) -> CacheHeader:
    """The header of the cache in `folder`.

    Raises:
        CacheError: there is no cache, its header is damaged, or a newer version wrote it.
    """
    path = folder / HEADER_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        reason = f"it has no {HEADER_NAME}" if folder.is_dir() else "there is no such folder"
        raise CacheError(
            f"{folder} is not a teacher cache: {reason}. Give the folder that `distill3d cache build` wrote."
        ) from None
    except (ValueError, OSError) as error:
        raise CacheError(f"cannot read {path} ({error}); the header is damaged. Build the cache again.") from error
    number = found.get("format") if isinstance(found, dict) else None
    if number not in KNOWN_FORMATS:
        known = ", ".join(map(str, KNOWN_FORMATS))
        raise CacheError(
            f"{folder} has cache format {number!r}; this version of distill3d reads {known}. "
            "Update distill3d, or build the cache again."
        )
    names = {item.name for item in fields(CacheHeader)}
    if unknown := sorted(set(found) - names):
        raise CacheError(f"{path} has entries that format {number} does not know: {', '.join(unknown)}")
    return CacheHeader(**found)


def require_same_header(folder: Path, found: CacheHeader, expected: CacheHeader) -> None:
    """Refuse to add labels of one kind to a cache of another.

    Raises:
        CacheError: names the settings that differ, what the cache has and what was asked for.
    """
    ours, theirs = _flat(expected.plain()), _flat(found.plain())
    absent = "(nothing)"
    changed = [name for name in set(ours) | set(theirs) if ours.get(name, absent) != theirs.get(name, absent)]
    # The teacher itself says more than its many settings.
    changed.sort(key=lambda name: (name != "teacher", name.count("."), name))
    if changed:
        told = [
            f"{name}: the cache has {theirs.get(name, absent)!r}, this run {ours.get(name, absent)!r}"
            for name in changed[:MOST_TOLD]
        ]
        if len(changed) > MOST_TOLD:
            told.append(f"and {len(changed) - MOST_TOLD} more")
        raise CacheError(
            f"cannot add to {folder}, it was made with other settings. {'; '.join(told)}. "
            "Use the same settings, or another output folder."
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, child in value.items():
        found.update(_flat(child, f"{prefix}.{name}" if prefix else name))
    return found


def read_failures(folder: Path) -> list[dict[str, str]]:
    """Samples that could not be made (`key`, `reason`), in the order they were met; a torn last line is left out."""
    try:
        data = (folder / FAILURES_NAME).read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def sample_folder(key: str) -> str:
    """The folder of a sample inside its shard: readable, safe in any file system, unique to the key."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", key)[:60].strip("-")
    digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    return f"{readable}-{digest}" if readable else digest


def tar_member(name: str, data: bytes) -> bytes:
    """A tar header, the data, and zeros up to the next block; no time or owner, so that reruns agree."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)


def round_up(size: int) -> int:
    """The next multiple of a tar block."""
    return -(-size // BLOCK) * BLOCK
