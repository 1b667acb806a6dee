"""Planes of whole numbers as bytes: predict each pixel from its neighbours, pack what is left with a Huffman code.

Three predictors. All are exact, and undone by few passes over whole arrays, so that neither a CPU nor an accelerator
needs a loop over pixels: `none`; `delta`, differences along the rows of differences along the columns; `pyramid`, the
mean of the two middle ones of the four nearest neighbours on a grid that gets twice as fine with every level. The first
suits noise about zero, the second clean surfaces, the third surfaces with noise, which it amplifies least.
"""

import struct
from typing import Any, Literal

import cv2
import numpy as np
import zstandard

Plane = np.ndarray[Any, np.dtype[np.signedinteger[Any]]]
"""Of 16 or 32 bits."""
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Predictor = Literal["none", "delta", "pyramid"]
PREDICTORS: tuple[Predictor, ...] = ("none", "delta", "pyramid")
PROBE_ROWS = 8
"""So many rows decide which predictor serves a plane."""
WORTH_BITS = {"none": 0.0, "delta": 0.02, "pyramid": 0.04}
"""What a predictor must save, in bits a pixel, to be worth its time."""
BIG = 48
"""Stands for all numbers from it on. Rare numbers cost more within a Huffman code of zstd, whose longest code has 11
bits, than beside it: 254 in place of 48 makes noisy planes 2 to 4 % larger."""
COARSEST = 32
"""The pyramid ends where a side of its plane is shorter."""
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

    A 32-bit length and so many bytes of zstd with one byte a pixel, `BIG` for all numbers from there on; then zstd of
    those numbers less `BIG`, as wide as the plane's, first all lowest bytes and so on; nothing where there are none.
    """
    rest = rest.reshape(-1)
    # Clipped twice, before and after, because NumPy clips numbers with sign ten times as fast as those without.
    low = _fold(rest.clip(-BIG, BIG)).view(rest.dtype).clip(0, BIG).astype(np.uint8)
    packed = zstandard.ZstdCompressor(compression_params=_HUFFMAN).compress(memoryview(low))
    big = np.flatnonzero(low == BIG)
    high = b""
    if big.size:
        folded = _fold(rest[big])
        above = folded - folded.dtype.type(BIG)
        bytes_of = above.astype(above.dtype.newbyteorder("<")).view(np.uint8).reshape(big.size, -1)
        high = zstandard.ZstdCompressor().compress(np.ascontiguousarray(bytes_of.T).tobytes())
    return b"".join([_LENGTH.pack(len(packed)), packed, high])


def unpack_plane(data: bytes, predictor: str, shape: tuple[int, int], bits: int) -> Plane:
    """The plane that `pack_plane` packed, of as many bits.

    Raises:
        ValueError, struct.error, zstandard.ZstdError: the bytes are damaged, or the predictor is unknown.
    """
    if predictor not in PREDICTORS:
        raise ValueError(f"unknown predictor {predictor!r}")
    low, high = split_plane(data, shape[0] * shape[1], bits // 8)
    rest = _unfold(low).astype(f"i{bits // 8}")
    if high.size:
        big = np.flatnonzero(low == BIG)
        if len(big) != high.shape[1]:
            raise ValueError(f"{high.shape[1]} large numbers where {len(big)} were expected")
        folded = np.ascontiguousarray(high.T).view(f"<u{bits // 8}")[:, 0].astype(f"u{bits // 8}")
        rest[big] = _unfold(folded + folded.dtype.type(BIG))
    return restore(rest, predictor, shape)


def split_plane(data: bytes, pixels: int, itemsize: int) -> tuple[Bytes, Bytes]:
    """What zstd holds: the low bytes (pixels,), and those of the large numbers (itemsize, numbers).

    Raises:
        ValueError, struct.error, zstandard.ZstdError: the bytes are damaged.
    """
    start = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    low = np.frombuffer(unzstd(data[_LENGTH.size : start], pixels), dtype=np.uint8)
    if len(data) == start:
        return low, np.empty((itemsize, 0), dtype=np.uint8)
    raw = zstandard.ZstdDecompressor().decompress(data[start:], max_output_size=itemsize * pixels)
    return low, np.frombuffer(raw, dtype=np.uint8).reshape(itemsize, -1)


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
    """What is left of each pixel when its prediction is taken off, in one row. Sums wrap around at the plane's bits."""
    if predictor == "pyramid":
        return _pyramid(plane)
    rest = plane.copy()
    if predictor == "delta":
        rest[:, 1:] -= plane[:, :-1]
        rest[1:] -= rest[:-1].copy()
    return rest.reshape(-1)


def restore(rest: Plane, predictor: str, shape: tuple[int, int]) -> Plane:
    """Undo `predict`; may change `rest`."""
    if predictor == "pyramid":
        return _from_pyramid(rest, shape)
    return _sum_up(rest.reshape(shape)) if predictor == "delta" else rest.reshape(shape)


def _fold(numbers: Plane) -> Any:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ... of the same width."""
    width = numbers.itemsize
    return ((numbers << 1) ^ (numbers >> (8 * width - 1))).view(f"u{width}")


def _unfold(folded: Any) -> Any:
    numbers = folded >> 1
    numbers ^= np.negative(folded & 1)
    return numbers.view(f"i{numbers.itemsize}")


def _sum_up(rest: Plane) -> Plane:
    """Sums down the columns and along the rows."""
    if rest.dtype == np.int16 and rest.size:
        # OpenCV sums in a quarter of NumPy's time. In single precision, sums below 2^23 are exact, and so are those of
        # the rows, which they are made of: as differences of two of them, these stay below 2^24.
        sums = cv2.integral(rest.astype(np.float32), sdepth=cv2.CV_32F)
        if max(-sums.min(), sums.max()) < 1 << 23:
            return sums[1:, 1:].astype(np.int32).astype(np.int16)
    np.add.accumulate(rest, axis=0, out=rest)
    np.add.accumulate(rest, axis=1, out=rest)
    return rest


def _pyramid(plane: Plane) -> Plane:
    """From coarse to fine: the coarsest plane (`delta`), then what is left of each level's centres, rights and belows.

    Of two by two pixels, the corner belongs to the coarser level. The centre, to its right below, is predicted from the
    four corners about it; the pixels right of the corner and below it from the two corners and two centres beside them.
    """
    parts: list[Plane] = []
    while min(plane.shape) >= COARSEST:
        corners, right, below, centres = (
            np.ascontiguousarray(plane[row::2, column::2]) for row in (0, 1) for column in (0, 1)
        )
        around = _around(corners, plane.shape)
        predicted_right, predicted_below = _predict_sides(around, centres, corners.shape)
        parts += [below - predicted_below, right - predicted_right, centres - _predict_centres(around)]
        plane = corners
    parts.append(predict(plane, "delta"))
    return np.concatenate([part.reshape(-1) for part in reversed(parts)])


def _from_pyramid(rest: Plane, shape: tuple[int, int]) -> Plane:
    shapes = [shape]
    while min(shapes[-1]) >= COARSEST:
        shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
    end = shapes[-1][0] * shapes[-1][1]
    plane = _sum_up(rest[:end].reshape(shapes[-1]))
    for finer in reversed(shapes[:-1]):
        whole = np.empty(finer, dtype=rest.dtype)
        whole[::2, ::2] = plane
        parts = []
        for row, column in ((1, 1), (0, 1), (1, 0)):
            target = whole[row::2, column::2]
            start, end = end, end + target.size
            parts.append((target, rest[start:end].reshape(target.shape)))
        around = _around(plane, finer)
        (target, left), *sides = parts
        centres = left + _predict_centres(around)
        target[...] = centres
        for (target, left), predicted in zip(sides, _predict_sides(around, centres, plane.shape), strict=True):
            np.add(left, predicted, out=target)
        plane = whole
    return plane


def _around(corners: Plane, shape: tuple[int, ...]) -> Plane:
    """The corners about every centre of a plane: where its last row or column has none after it, the last stand in."""
    missing = [side // 2 + 1 - there for side, there in zip(shape, corners.shape, strict=True)]
    return _bordered(corners, 0, missing[0], 0, missing[1])


def _bordered(plane: Plane, above: int, below: int, left: int, right: int) -> Plane:
    """With so many rows and columns more on each side, the same as the last."""
    return cv2.copyMakeBorder(plane, above, below, left, right, cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def _predict_centres(around: Plane) -> Plane:
    return _middle(around[:-1, :-1], around[:-1, 1:], around[1:, :-1], around[1:, 1:])


def _predict_sides(around: Plane, centres: Plane, shape: tuple[int, ...]) -> tuple[Plane, Plane]:
    """Of the pixels right of the corners, and of those below them; `shape` is that of the corners."""
    rows, columns = shape
    beside = _bordered(centres, 1, 1, 1, 1)
    right = _middle(around[:rows, :-1], around[:rows, 1:], beside[:rows, 1:-1], beside[1 : rows + 1, 1:-1])
    below = _middle(around[:-1, :columns], around[1:, :columns], beside[1:-1, :columns], beside[1:-1, 1 : columns + 1])
    return right, below


def _middle(a: Plane, b: Plane, c: Plane, d: Plane) -> Plane:
    """The mean, rounded down, of the two middle ones of four numbers: one may lie on the other side of an edge."""
    # OpenCV takes half of NumPy's time for parts of a plane; its sums would saturate, these wrap around.
    mean: Plane = cv2.max(cv2.min(a, b), cv2.min(c, d))  # type: ignore[assignment]
    mean += cv2.min(cv2.max(a, b), cv2.max(c, d))  # type: ignore[arg-type]
    mean >>= 1
    return mean


def _best_predictor(plane: Plane) -> Predictor:
    """Judged inside a band of rows, by the logarithm of what is left of a pixel."""
    if not plane.any() or min(plane.shape) < 5:
        return "none" if not plane.any() else "delta"
    first = max(0, (plane.shape[0] - PROBE_ROWS) // 2)
    band = plane[first : first + PROBE_ROWS]
    along = band[:, 1:] - band[:, :-1]
    inside, wide = band[1:-1, 1:-1], band[2:-2, 2:-2]
    straight = inside - _middle(band[:-2, 1:-1], band[2:, 1:-1], band[1:-1, :-2], band[1:-1, 2:])
    diagonal = inside - _middle(band[:-2, :-2], band[:-2, 2:], band[2:, :-2], band[2:, 2:])
    farther = wide - _middle(band[:-4, :-4], band[:-4, 4:], band[4:, :-4], band[4:, 4:])
    bits = {
        "none": _bits(inside),
        "delta": _bits(along[1:] - along[:-1]),
        # Half of the pixels are rights and belows, a quarter centres; `farther` stands for all coarser levels.
        "pyramid": 0.5 * _bits(straight) + 0.25 * _bits(diagonal) + 0.25 * _bits(farther),
    }
    return min(PREDICTORS, key=lambda predictor: bits[predictor] + WORTH_BITS[predictor])


def _bits(rest: Plane) -> float:
    return float(np.log2(1 + np.abs(rest.astype(np.float32))).mean())
