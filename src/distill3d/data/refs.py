"""Where an array lies and how it is decoded. Nothing is read before somebody asks for it.

A `Ref` names a span of bytes (a whole file, or one member of a tar or zip) or a frame of a video, and the codec that
makes an array of it (see `data.codecs`). Manifests store refs; media stay where they are.
"""

import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlencode

from distill3d.errors import DataError
from distill3d.files import PathLike

Store = Literal["file", "deflate", "video"]
"""Bytes as they are, bytes that were deflated (members of zips), or a frame of a video."""
_MOST_INFLATED = 1 << 30
CodecOption = str | int | float


@dataclass(frozen=True)
class Ref:
    """One array on disk, not yet read."""

    path: str
    """Relative to the root of the manifest, with `/`."""
    codec: str = "image"
    """Name of a codec, with its options: "png16?scale=0.001". Made by `codec`."""
    offset: int = 0
    """First byte in the file; for a video, the number of the frame."""
    length: int | None = None
    """Bytes; to the end of the file if `None`."""
    store: Store = "file"

    def within(self, root: PathLike) -> "Span":
        """The bytes of it, on this machine.

        Raises:
            DataError: it is a frame of a video, which has no bytes of its own.
        """
        if self.store == "video":
            raise DataError(f"{self.path} is a video, expected a file whose bytes can be read.")
        return Span(Path(root) / self.path, self.offset, self.length, self.store == "deflate")


@dataclass(frozen=True)
class Span:
    """A stretch of a file."""

    path: Path
    offset: int = 0
    length: int | None = None
    deflated: bool = False
    """Whether its bytes are inflated when they are read, up to a gigabyte."""

    def open(self) -> io.BufferedReader | io.BytesIO:
        """A file that starts at the first byte of the span and ends at its last.

        Raises:
            OSError: the file cannot be opened.
            EOFError: it ends before the span does.
            ValueError, zlib.error: what was deflated is damaged, or would take more than a gigabyte.
        """
        file = self.path.open("rb")
        if self.offset == 0 and self.length is None:
            return file
        with file:
            file.seek(self.offset)
            data = file.read() if self.length is None else file.read(self.length)
        if self.length is not None and len(data) < self.length:
            raise EOFError(f"it ends {self.length - len(data)} bytes before the end of the span")
        return io.BytesIO(_inflated(data) if self.deflated else data)

    def read(self) -> bytes:
        """All bytes of it; raises as `open`."""
        with self.open() as file:
            return file.read()

    def __str__(self) -> str:
        return str(self.path) if self.length is None else f"{self.path} (byte {self.offset})"


def _inflated(data: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    found = stream.decompress(data, _MOST_INFLATED)
    if not stream.eof:
        raise ValueError("what was deflated ends too soon or is more than a gigabyte")
    return found


def codec(name: str, **options: CodecOption) -> str:
    """Spell a codec with its options, in a fixed order: codec("png16", scale=0.001) is "png16?scale=0.001"."""
    return f"{name}?{urlencode(sorted(options.items()))}" if options else name


def parse_codec(spelled: str) -> tuple[str, dict[str, CodecOption]]:
    """Name and options of a codec, the inverse of `codec`; what looks like a number becomes one."""
    name, _, query = spelled.partition("?")
    return name, {key: _value(text) for key, text in parse_qsl(query, keep_blank_values=True)}


def _value(text: str) -> CodecOption:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
