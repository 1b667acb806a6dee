"""Depth as bare numbers behind a short header, or behind none: PFM, DPT, COLMAP, ETH3D, ScanNet++."""

import struct
import zlib
from typing import Literal

import numpy as np
from jaxtyping import Float

from distill3d.data.codecs import checked_size, known_depth
from distill3d.data.refs import Span

Depth = Float[np.ndarray, "height width"]
_DPT_TAG = 202021.25


def pfm(span: Span, *, scale: float = 1.0) -> Depth:
    """Portable float map of one channel (`Pf`): rows run bottom-up, a negative scale means little-endian."""
    with span.open() as file:
        kind = file.readline(8).strip()
        width, height = map(int, file.readline(64).split())
        order = float(file.readline(64))
        if kind != b"Pf" or order == 0:
            raise ValueError(f"it starts with {kind!r}, expected a PFM of one channel")
        checked_size(height, width)
        values = _floats(file.read(height * width * 4), "<f4" if order < 0 else ">f4", height, width)
    return known_depth(values[::-1], scale)


def dpt(span: Span, *, far: float = 0.0) -> Depth:
    """Sintel's `.dpt`: tag, int32 width and height, float32 rows; from `far` on it is sky (0 keeps everything)."""
    with span.open() as file:
        tag, width, height = struct.unpack("<fii", file.read(12))
        if tag != _DPT_TAG:
            raise ValueError(f"its tag is {tag}, expected {_DPT_TAG}")
        checked_size(height, width)
        values = _floats(file.read(height * width * 4), "<f4", height, width)
    return known_depth(np.where(values >= far, 0, values) if far else values)


def colmap(span: Span) -> Depth:
    """COLMAP's `.bin` maps: `width&height&channels&` in ASCII, then float32 with x running fastest."""
    with span.open() as file:
        head = file.read(64)
        width, height, channels = map(int, head.split(b"&", 3)[:3])
        checked_size(height, width)
        if channels != 1:
            raise ValueError(f"it has {channels} channels, expected one: it may be a map of normals")
        file.seek(len(b"&".join(head.split(b"&", 3)[:3])) + 1)
        return known_depth(_floats(file.read(height * width * 4), "<f4", height, width))


def raw(
    span: Span,
    *,
    dtype: str,
    height: int,
    width: int,
    scale: float = 1.0,
    packed: Literal["", "deflate", "lz4"] = "",
    index: int = 0,
) -> Depth:
    """Numbers without a header, row by row.

    Args:
        span: the numbers.
        dtype: as NumPy spells it, as in "<f4".
        height: rows.
        width: columns.
        scale: scene units per stored unit.
        packed: how they are compressed: not at all, deflate without a header (zlib's -15), or one block of LZ4.
        index: of the map, where several are packed into one stream.
    """
    kind = np.dtype(dtype)
    if kind.kind not in "fui":
        raise ValueError(f"it is said to hold {dtype}, expected numbers")
    checked_size(height, width)
    size = height * width * kind.itemsize
    if packed == "lz4":
        data = _unpack_lz4(span.read(), (index + 1) * size)[index * size :]
    elif packed == "deflate":
        data = _inflate(span, index * size, size)
    else:
        with span.open() as file:
            file.seek(index * size)
            data = file.read(size)
    return known_depth(_floats(data, kind, height, width), scale)


def _floats(data: bytes, dtype: str | np.dtype, height: int, width: int) -> np.ndarray:
    values = np.frombuffer(data, dtype)
    if values.size != height * width:
        raise ValueError(f"it holds {values.size} numbers, expected {width}x{height}: it may be cut short")
    return values.reshape(height, width)


def _unpack_lz4(data: bytes, size: int) -> bytes:
    import pyarrow as pa

    unpacked: bytes = pa.Codec("lz4_raw").decompress(data, size, asbytes=True)
    return unpacked


def _inflate(span: Span, start: int, size: int, step: int = 1 << 20) -> bytes:
    """Bytes `start` to `start + size` of a deflate stream; what stands before is unpacked piece by piece."""
    unpacker = zlib.decompressobj(-15)
    kept = bytearray()
    with span.open() as file:
        passed = 0
        while len(kept) < size and not unpacker.eof:
            packed = unpacker.unconsumed_tail or file.read(step)
            if not packed:
                break
            piece = unpacker.decompress(packed, step)
            kept += piece[max(start - passed, 0) :]
            passed += len(piece)
    return bytes(kept[:size])


DEPTH_CODECS = {"pfm": pfm, "dpt": dpt, "colmap": colmap, "raw": raw}
