"""Names of weights: theirs to ours and back, and loading that is all or nothing."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from distill3d.errors import CheckpointError

SHOWN = 6
"""How many names of a kind an error lists."""


def rename_keys(weights: Mapping[str, Tensor], renames: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Official names to ours.

    Args:
        weights: tensors by name.
        renames: (theirs, ours), tried in order, each at most once per name. A part that starts with a dot is replaced
            wherever it stands, any other only at the start of the name.

    Raises:
        CheckpointError: two names become one.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        new = _rename(name, renames)
        if new in renamed:
            raise CheckpointError(f"Two entries of these weights would both become {new!r}; check the renames.")
        renamed[new] = tensor
    return renamed


def restore_keys(weights: Mapping[str, Tensor], renames: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Our names to the official ones: `rename_keys` read backwards.

    Raises:
        CheckpointError: two names become one.
    """
    return rename_keys(weights, [(ours, theirs) for theirs, ours in reversed(renames)])


def merge_aliases(
    weights: Mapping[str, Tensor], aliases: Sequence[tuple[str, str]], *, source: str
) -> dict[str, Tensor]:
    """Give every tensor its one official name; files may hold the alias, the name, or both.

    Raises:
        CheckpointError: both are there and differ.
    """
    merged: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        known = _rename(name, aliases)
        if known in merged and not torch.equal(merged[known], tensor):
            raise CheckpointError(
                f"{source} holds {known!r} twice, the second time as an alias, with different values. "
                "One of them is stale; fetch the file again, or drop the alias."
            )
        merged[known] = tensor
    return merged


def strip_prefixes(weights: Mapping[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    """Cut off what a training framework put before every name; entries without it (counters, metrics) are dropped."""
    stripped = dict(weights)
    for prefix in prefixes:
        if any(name.startswith(prefix) for name in stripped):
            stripped = {
                name.removeprefix(prefix): tensor for name, tensor in stripped.items() if name.startswith(prefix)
            }
    return stripped


def load_strict(model: nn.Module, weights: Mapping[str, Tensor], *, source: str, ignore: Sequence[str] = ()) -> None:
    """Load every weight or change nothing. Halves on disk become whatever precision the model has.

    Args:
        model: changed in place.
        weights: tensors under our names.
        source: the file or place they come from, for the words of the error.
        ignore: parts of names that may be left over.

    Raises:
        CheckpointError: an entry is missing, left over or of another shape.
    """
    own = model.state_dict()
    missing = sorted(set(own) - set(weights))
    left_over = sorted(name for name in set(weights) - set(own) if not any(part in name for part in ignore))
    shapes = [
        f"{name}: {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(weights))
        if weights[name].shape != own[name].shape
    ]
    if missing or left_over or shapes:
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__}: {_listed(missing, 'missing')}, "
            f"{_listed(left_over, 'left over')}, {_listed(shapes, 'of another shape')}. "
            "Check the variant you asked for, or the renames of the model."
        )
    model.load_state_dict({name: weights[name] for name in own}, strict=True)


def _rename(name: str, renames: Sequence[tuple[str, str]]) -> str:
    for old, new in renames:
        if old.startswith("."):
            name = name.replace(old, new, 1)
        elif name.startswith(old):
            name = new + name.removeprefix(old)
    return name


def _listed(names: Sequence[str], what: str) -> str:
    shown = [*names[:SHOWN], "..."] if len(names) > SHOWN else list(names)
    return f"{len(names)} {what} {shown}"
