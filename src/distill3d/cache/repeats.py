"""Maps that say the same twice: a depth that is the pointmap's z, two heads that share one confidence."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from distill3d.cache.blob import Array
from distill3d.cache.record import DEPTH, LOCAL


def drop_repeats(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays without those that equal another one bit for bit, and notes that bring them back."""
    kept = dict(arrays)
    notes: dict[str, Any] = {}
    if LOCAL in kept and DEPTH in kept and _same(kept[DEPTH], kept[LOCAL][..., 2]):
        del kept[DEPTH]
        notes["depth"] = "z"
    same: dict[str, str] = {}
    confidences = [name for name in kept if "confidence" in name]
    for position, name in enumerate(confidences):
        twin = next((other for other in confidences[:position] if _same(kept[other], kept[name])), None)
        if twin is not None and twin not in same:
            same[name] = twin
    for name in same:
        del kept[name]
    if same:
        notes["same"] = same
    return kept, notes


def restore_repeats(arrays: dict[str, Array], notes: Mapping[str, Any]) -> None:
    """Add what `drop_repeats` left out.

    Raises:
        KeyError: the array that it repeats is not there.
    """
    if notes.get("depth") == "z":
        arrays[DEPTH] = np.ascontiguousarray(arrays[LOCAL][..., 2])
    for name, twin in notes.get("same", {}).items():
        arrays[name] = arrays[twin].copy()


def _same(first: Array, second: Array) -> bool:
    """Bit for bit; what differs mostly does so in the first row."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return first[:1].tobytes() == second[:1].tobytes() and first.tobytes() == second.tobytes()
