"""Pixels that a quantised map cannot hold within its bound keep their values, bit for bit, beside it."""

from collections.abc import Mapping

import numpy as np

from distill3d.cache.blob import Array

ESCAPED, VALUES = ".escaped", ".values"


def pack_escapes(name: str, escaped: Array, original: Array) -> dict[str, Array]:
    """A mask of the escaped pixels and their values in raster order; nothing where there are none."""
    if not escaped.any():
        return {}
    return {name + ESCAPED: escaped, name + VALUES: original[escaped].astype(np.float32)}


def put_escapes(name: str, arrays: Mapping[str, Array], decoded: Array) -> None:
    """Set the escaped pixels of a decoded map to their values.

    Raises:
        KeyError: a mask without values.
        ValueError: mask, values and map do not fit each other.
    """
    escaped = arrays.get(name + ESCAPED)
    if escaped is not None:
        decoded[escaped] = arrays[name + VALUES]


def fill_escaped(values: Array, escaped: Array) -> Array:
    """The map with every escaped pixel as the last one before it in raster order that is not: cheap to pack."""
    if not escaped.any():
        return values
    if escaped.all():
        return np.zeros_like(values)
    kept = np.flatnonzero(~escaped)
    source = np.zeros(escaped.size, dtype=np.int64)
    source[kept] = kept
    source[: kept[0]] = kept[0]
    np.maximum.accumulate(source, out=source)
    return values.reshape(-1)[source].reshape(values.shape)


def same_numbers(first: Array, second: Array) -> Array:
    """Where two float maps hold the same number; NaN is the same as NaN, whatever its payload."""
    return np.asarray((first == second) | (np.isnan(first) & np.isnan(second)))
