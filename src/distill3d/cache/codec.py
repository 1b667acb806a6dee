"""How the arrays of a view become a blob: `exact` keeps float16 bit for bit, `compact` keeps a stated bound."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from distill3d.cache.blob import Array
from distill3d.cache.blob import Encoded as Encoded
from distill3d.cache.compact import CompactCodec
from distill3d.cache.exact import ExactCodec
from distill3d.errors import CacheError


@runtime_checkable
class Codec(Protocol):
    """Packs the named arrays of one view, and unpacks them again."""

    @property
    def name(self) -> str:
        """As in the header of the cache."""

    def settings(self) -> dict[str, Any]:
        """Everything that decides the bytes."""

    def encode(self, arrays: Mapping[str, Array]) -> Encoded:
        """A blob of one view."""

    def decode(self, data: bytes) -> dict[str, Array]:
        """The arrays of a blob; with `similarity.*` where the world map is kept as a similarity."""


CODECS: dict[str, Callable[..., Codec]] = {"exact": ExactCodec, "compact": CompactCodec}
"""Name in the header to the class that packs and unpacks; its fields are the codec's settings."""


def get_codec(name: str, settings: Mapping[str, Any] | None = None) -> Codec:
    """The codec of that name.

    Raises:
        CacheError: no such codec, or settings that it does not have.
    """
    if name not in CODECS:
        raise CacheError(f"unknown cache codec {name!r}; this version of distill3d has {', '.join(CODECS)}")
    try:
        return CODECS[name](**(settings or {}))
    except TypeError as error:
        raise CacheError(f"codec {name} does not take {dict(settings or {})}: {error}") from None
