"""One view's labels as bytes: a JSON table of named arrays, then the arrays, each packed without loss.

Layout, little-endian: the magic `D3VB`, a 32-bit length, that many bytes of JSON, the packed arrays one after another.
The JSON holds `arrays` (name, dtype, shape, encoding, size in bytes) and `notes` (plain values of the codec).
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zstandard

from distill3d.cache.planes import pack_plane, unpack_plane, unzstd
from distill3d.errors import CacheError

MAGIC = b"D3VB"
PREFIX = struct.Struct("<4sI")
DTYPES = ("bool", "uint8", "int16", "int32", "float16", "float32", "float64")
SMALL_BYTES = 512
"""Arrays up to this size are kept as they are."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Named arrays, and plain values that say how to read them."""

    arrays: Mapping[str, Array]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A view's labels as a blob."""

    data: bytes
    from_similarity: bool
    """The world map is not stored, but made from the local one."""


def pack_blob(blob: Blob, level: int = 3) -> bytes:
    """Bytes of a blob; the same blob gives the same bytes. `level` is zstd's.

    Raises:
        CacheError: an array of a type that the format does not know.
    """
    table: list[dict[str, Any]] = []
    packed: list[bytes] = []
    for name, array in blob.arrays.items():
        if array.dtype.name not in DTYPES:
            raise CacheError(f"{name} is {array.dtype.name}; the cache stores {', '.join(DTYPES)}")
        encoding, data = _encode(array, level)
        packed.append(data)
        row = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
        table.append({**row, "encoding": encoding, "size": len(data)})
    text = json.dumps({"arrays": table, "notes": dict(blob.notes)}, separators=(",", ":"), sort_keys=True)
    head = text.encode()
    return b"".join([PREFIX.pack(MAGIC, len(head)), head, *packed])


def unpack_blob(data: bytes) -> Blob:
    """The blob that `pack_blob` packed.

    Raises:
        CacheError: the bytes are not a blob, or are cut short.
    """
    parts, notes = read_parts(data)
    return Blob(arrays={name: decode_part(part) for name, part in parts.items()}, notes=notes)


@dataclass(frozen=True, kw_only=True)
class Part:
    """An array of a blob, still packed."""

    dtype: str
    shape: tuple[int, ...]
    encoding: str
    data: bytes


def read_parts(data: bytes) -> tuple[dict[str, Part], dict[str, Any]]:
    """The packed arrays of a blob by their names, and its notes.

    Raises:
        CacheError: the bytes are not a blob.
    """
    if len(data) < PREFIX.size or data[:4] != MAGIC:
        raise CacheError(f"found {data[:4]!r} where a view's labels start with {MAGIC!r}; the shard is damaged")
    _, length = PREFIX.unpack_from(data)
    offset = PREFIX.size + length
    try:
        head = json.loads(data[PREFIX.size : offset])
        parts: dict[str, Part] = {}
        for row in head["arrays"]:
            packed = data[offset : offset + row["size"]]
            parts[row["name"]] = Part(
                dtype=row["dtype"], shape=tuple(row["shape"]), encoding=row["encoding"], data=packed
            )
            offset += row["size"]
        return parts, head["notes"]
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(f"a view's labels cannot be decoded ({error}); the shard is damaged") from error


def decode_part(part: Part) -> Array:
    """The array.

    Raises:
        CacheError: its bytes are damaged or cut short.
    """
    try:
        return _decode(part.encoding, part.data, part.dtype, part.shape)
    except (ValueError, KeyError, TypeError, struct.error, zstandard.ZstdError) as error:
        raise CacheError(f"a view's labels cannot be decoded ({error}); the shard is damaged") from error


def _encode(array: Array, level: int) -> tuple[str, bytes]:
    if array.dtype == bool:
        return "bits", _compress(np.packbits(array.reshape(-1)).tobytes(), level)
    if array.dtype in (np.int16, np.int32) and array.ndim == 2:
        predictor, data = pack_plane(array)
        return f"plane-{predictor}", data
    if array.nbytes <= SMALL_BYTES or array.dtype.name not in ("float16", "float32"):
        return "raw", np.ascontiguousarray(array).tobytes()
    # Neighbours differ little: per channel, take differences along the row, fold the sign into the lowest bit, and
    # bring like bytes together. Measured on rooms with 0.05 % noise: 4.8x, against 2.0x for the byte shuffle alone.
    bits = np.dtype(f"i{array.dtype.itemsize}")
    planes = np.moveaxis(np.ascontiguousarray(array).view(bits), -1, 0) if array.ndim > 2 else array.view(bits)
    delta = np.array(planes, order="C", copy=True)
    delta[..., 1:] -= planes[..., :-1]
    folded = (delta << 1) ^ (delta >> (8 * bits.itemsize - 1))
    shuffled = np.ascontiguousarray(folded.reshape(-1).view(np.uint8).reshape(-1, bits.itemsize).T)
    return "delta-shuffle", _compress(shuffled.tobytes(), level)


def _decode(encoding: str, data: bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    if dtype not in DTYPES:
        raise ValueError(f"unknown array type {dtype!r}")
    count = int(np.prod(shape, dtype=np.int64))
    if encoding == "raw":
        return np.frombuffer(data, dtype=dtype).reshape(shape).copy()
    if encoding == "bits":
        packed = np.frombuffer(unzstd(data, -(-count // 8)), dtype=np.uint8)
        return np.unpackbits(packed, count=count).astype(bool).reshape(shape)
    if encoding.startswith("plane-") and dtype in ("int16", "int32") and len(shape) == 2:
        return unpack_plane(data, encoding.removeprefix("plane-"), shape, 8 * np.dtype(dtype).itemsize)
    if encoding != "delta-shuffle":
        raise ValueError(f"unknown array encoding {encoding!r}")
    size = np.dtype(dtype).itemsize
    shuffled = np.frombuffer(unzstd(data, count * size), dtype=np.uint8).reshape(size, count)
    folded = np.ascontiguousarray(shuffled.T).view(f"u{size}")
    planes_shape = (shape[-1], *shape[:-1]) if len(shape) > 2 else shape
    delta = (folded >> 1) ^ (0 - (folded & 1))
    planes = np.cumsum(delta.reshape(planes_shape), axis=-1, dtype=f"u{size}")
    array = planes if len(shape) <= 2 else np.moveaxis(planes, 0, -1)
    return np.ascontiguousarray(array).view(dtype).reshape(shape)


def _compress(data: bytes, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(data)
