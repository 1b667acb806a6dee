"""Planes of whole numbers as bytes: predict each pixel from its neighbours, pack what is left with a Huffman code.

Three predictors. All are exact, and undone by few passes over whole arrays, so that neither a CPU nor an accelerator
needs a loop over pixels: `none`; `delta`, differences along the rows of differences along the columns; `interpolate`,
the mean of the two nearest neighbours on a grid that gets twice as fine with every level. The first suits noise about
zero, the second clean surfaces, the third surfaces with noise, which it amplifies least.
"""

import struct
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import zstandard

Plane = np.ndarray[Any, np.dtype[np.signedinteger[Any]]]
"""Of 16 or 32 bits."""
Predictor = Literal["none", "delta", "interpolate"]
PREDICTORS: tuple[Predictor, ...] = ("none", "delta", "interpolate")
PROBE_ROWS = 16
"""So many rows decide which predictor serves a plane."""
BIG = 255
"""The low byte of a number that does not fit into one."""
_LENGTH = struct.Struct("<I")
# What is left is noise: searching it for matches costs time and even bytes (0.5 ms and 8 % of a plane of 224 x 518). A
# hash table of 64 entries finds none, so zstd does what is wanted: one Huffman table, four streams.
_HUFFMAN = zstandard.ZstdCompressionParameters(
    window_log=17, hash_log=6, chain_log=6, min_match=7, strategy=zstandard.STRATEGY_FAST
)


def pack_plane(plane: Plane) -> tuple[Predictor, bytes]:
    """The predictor that leaves least (judged by a band of rows), and the packed differences."""
    predictor = _best_predictor(plane)
    return predictor, pack_differences(predict(plane, predictor))


def pack_differences(rest: Plane) -> bytes:
    """Differences as numbers without sign (0, -1, 1, -2, ... as 0, 1, 2, 3, ...), most of them a byte.

    A 32-bit length and so many bytes of zstd with one byte a pixel, 255 for all numbers from there on; then zstd of
    those numbers less 255, 32 bits each, first all lowest bytes and so on; nothing where there are none.
    """
    rest = rest.reshape(-1)
    folded = ((rest << 1) ^ (rest >> (8 * rest.itemsize - 1))).view(f"u{rest.itemsize}")
    low = zstandard.ZstdCompressor(compression_params=_HUFFMAN).compress(
        np.minimum(folded, BIG).astype(np.uint8).tobytes()
    )
    big = folded[folded >= BIG].astype(np.uint32) - np.uint32(BIG)
    high = zstandard.ZstdCompressor().compress(big.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes())
    return b"".join([_LENGTH.pack(len(low)), low, high if big.size else b""])


def unpack_plane(data: bytes, predictor: str, shape: tuple[int, int], bits: int) -> Plane:
    """The plane that `pack_plane` packed, of as many bits.

    Raises:
        ValueError, struct.error, zstandard.ZstdError: the bytes are damaged, or the predictor is unknown.
    """
    if predictor not in PREDICTORS:
        raise ValueError(f"unknown predictor {predictor!r}")
    start = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    low = np.frombuffer(unzstd(data[_LENGTH.size : start], shape[0] * shape[1]), dtype=np.uint8)
    folded = low.astype(f"u{bits // 8}")
    if len(data) > start:
        big = np.flatnonzero(low == BIG)
        bytes_of = np.frombuffer(unzstd(data[start:], 4 * len(big)), dtype=np.uint8).reshape(4, -1)
        folded[big] += np.ascontiguousarray(bytes_of.T).view("<u4")[:, 0].astype(folded.dtype)
    sign = (folded & 1).view(f"i{bits // 8}")
    folded >>= 1
    rest = folded.view(sign.dtype)
    rest ^= -sign
    return restore(rest.reshape(shape), predictor)


def unzstd(data: bytes, expected: int) -> bytes:
    """The bytes of a zstd frame.

    Raises:
        ValueError: they are more or fewer than expected.
        zstandard.ZstdError: they are damaged.
    """
    raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=expected)
    if len(raw) != expected:
        raise ValueError(f"{len(raw)} bytes where {expected} were expected")
    return raw


def predict(plane: Plane, predictor: str) -> Plane:
    """What is left of each pixel when its prediction is taken off. Sums wrap around at the bits of the plane."""
    rest = plane.copy()
    if predictor == "delta":
        rest[:, 1:] -= plane[:, :-1]
        rest[1:] -= rest[:-1].copy()
    elif predictor == "interpolate":
        for target, before, after in _levels(rest, finest_first=True):
            target -= _between(before, after)
    return rest


def restore(rest: Plane, predictor: str) -> Plane:
    """Undo `predict`; may change `rest`."""
    if predictor == "delta":
        np.add.accumulate(rest, axis=0, out=rest)
        np.add.accumulate(rest, axis=1, out=rest)
    elif predictor == "interpolate":
        for target, before, after in _levels(rest, finest_first=False):
            target += _between(before, after)
    return rest


def _levels(plane: Plane, *, finest_first: bool) -> Iterator[tuple[Plane, Plane, Plane]]:
    """Pixels to predict with their neighbours before and after, as views of the plane.

    A level of step s knows the pixels whose row and column are multiples of s. It adds those halfway between two of
    them in a row, then those halfway between two in a column. At the right and lower border there may be none after.
    """
    steps = [1 << power for power in range((max(plane.shape) - 1).bit_length(), 0, -1)]
    for step in reversed(steps) if finest_first else steps:
        half = step // 2
        both = [
            (lines[:, half::step], lines[:, :-half:step], lines[:, step::step])
            for lines in (plane[::step], plane[:, ::half].T)
        ]
        yield from reversed(both) if finest_first else both


def _between(before: Plane, after: Plane) -> Plane:
    """The mean, rounded down, of the two neighbours; the one before alone where there is none after."""
    mean = before.copy()
    count = after.shape[1]
    mean[:, :count] += after
    mean[:, :count] >>= 1
    return mean


def _best_predictor(plane: Plane) -> Predictor:
    """Judged inside a band of rows, by what is left of every pixel at the finest level."""
    if not plane.any() or min(plane.shape) < 3:
        return "none" if not plane.any() else "delta"
    first = max(0, (plane.shape[0] - PROBE_ROWS) // 2)
    band = plane[first : first + PROBE_ROWS].astype(np.float32)
    along = band[:, 1:] - band[:, :-1]
    left = {
        "none": band,
        "delta": along[1:] - along[:-1],
        "interpolate": (along[:, 1:] - along[:, :-1]) / 2,
    }
    costs = {predictor: float(np.log2(1 + np.abs(rest)).mean()) for predictor, rest in left.items()}
    return min(PREDICTORS, key=costs.__getitem__)
