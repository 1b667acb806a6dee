"""ScanNet++'s `depth.bin`: many small depth maps in one file, in any of the three encodings that are about."""

import struct
import zlib
from pathlib import Path

from distill3d.data.refs import CodecOption, Ref, codec
from distill3d.errors import DataError

HEIGHT, WIDTH = 192, 256
_PIXELS = HEIGHT * WIDTH
_CHUNK = 1 << 20


def index_depth_stack(path: Path, inside: str) -> list[Ref]:
    """Where each map lies, in order.

    The file is one of: a single deflate stream of float32 metres; or for each map four bytes of length and then either
    a block of LZ4 with 16-bit millimetres or a deflate stream of float32 metres. A single stream is read through once,
    to count its maps.

    Args:
        path: the file.
        inside: the same as manifests spell it.

    Raises:
        DataError: it is none of these, or cut short.
        OSError: it cannot be read.
    """
    spans = _framed(path)
    metres: dict[str, CodecOption] = {"dtype": "<f4", "height": HEIGHT, "width": WIDTH, "packed": "deflate"}
    if spans is None:
        size = _unpacked_size(path)
        if size == 0 or size % (4 * _PIXELS):
            raise DataError(
                f"{path} unpacks to {size} bytes, expected a multiple of {4 * _PIXELS}: it is cut short, or no stack "
                f"of depth maps of {WIDTH}x{HEIGHT}. Download it again."
            )
        return [Ref(inside, codec("raw", **metres, index=index)) for index in range(size // (4 * _PIXELS))]
    with path.open("rb") as file:
        file.seek(spans[0][0])
        deflated = _inflates(file.read(spans[0][1]))
    steps = codec("raw", dtype="<u2", height=HEIGHT, width=WIDTH, packed="lz4", scale=0.001)
    return [Ref(inside, codec("raw", **metres) if deflated else steps, *span) for span in spans]


def _framed(path: Path) -> list[tuple[int, int]] | None:
    """Offset and length of each chunk, if lengths and chunks follow one another to the very end of the file."""
    end, at, spans = path.stat().st_size, 0, []
    with path.open("rb") as file:
        while at + 4 <= end:
            file.seek(at)
            (length,) = struct.unpack("<I", file.read(4))
            if length == 0 or at + 4 + length > end:
                return None
            spans.append((at + 4, length))
            at += 4 + length
    return spans if spans and at == end else None


def _inflates(chunk: bytes) -> bool:
    unpacker = zlib.decompressobj(-15)
    try:
        return len(unpacker.decompress(chunk, 4 * _PIXELS + 1)) == 4 * _PIXELS
    except zlib.error:
        return False


def _unpacked_size(path: Path) -> int:
    unpacker, size = zlib.decompressobj(-15), 0
    try:
        with path.open("rb") as file:
            while not unpacker.eof:
                packed = unpacker.unconsumed_tail or file.read(_CHUNK)
                if not packed:
                    break
                size += len(unpacker.decompress(packed, _CHUNK))
    except zlib.error as error:
        raise DataError(f"{path} is no stack of depth maps: {error}. Download it again.") from error
    return size
