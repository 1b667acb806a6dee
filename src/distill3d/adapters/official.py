"""Adapter files of Fin3R's authors: LoRA as peft names it inside the official networks, in a flat pickle."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill3d.adapters.config import Rule
from distill3d.adapters.files import attach
from distill3d.adapters.lora import find_layers
from distill3d.checkpoints.keys import rename_keys, strip_prefixes
from distill3d.errors import CheckpointError
from distill3d.models import ModelSpec

RELEASED_ALPHA = 8.0
"""Of the released configuration; the files do not hold it."""
_MATRIX = re.compile(r"(?P<layer>.+)\.lora_(?P<which>[AB])(\.[A-Za-z0-9_]+)?\.weight")
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class OfficialReport:
    """What was found in a file."""

    layers: tuple[str, ...]
    """The adapted layers, by our names."""
    rank: int
    base_entries: int
    """Weights of the base that came with the file and were loaded."""
    unexpected: tuple[str, ...]
    """Entries that are neither: not used."""


def load_fin3r(
    model: nn.Module,
    spec: ModelSpec,
    state_dict: Mapping[str, Tensor],
    *,
    source: str,
    alpha: float = RELEASED_ALPHA,
    rule: Rule = "activation_qkv",
) -> OfficialReport:
    """Put released adapters on their base, in place.

    Names may come with or without `base_model.model.`, `.default` and the prefix of a training framework. Weights of
    the base in the file (under their plain or wrapped names) take the place of the model's.

    Args:
        model: the base, without adapters.
        spec: knows the official names.
        state_dict: tensors of the file.
        source: where they come from, for the words of an error.
        alpha: not in the file; that of the released configuration otherwise.
        rule: that of the released code otherwise.

    Raises:
        CheckpointError: a matrix is missing, of another rank or shape, or the file holds no adapters.
    """
    plain = {_plain(name): tensor for name, tensor in strip_prefixes(state_dict, spec.prefixes).items()}
    pieces = {name: _MATRIX.fullmatch(name) for name in plain}
    matrices: dict[str, Tensor] = {}
    for name, piece in pieces.items():
        if piece is not None:
            matrices[f"{_our_layer(piece['layer'], spec)}.lora_{piece['which']}"] = plain[name]
    if not matrices:
        raise CheckpointError(
            f"{source} holds no adapters (no lora_A and lora_B among {len(plain)} entries, e.g. "
            f"{', '.join(sorted(plain)[:SHOWN])}). Check that it is the file you meant."
        )
    layers = tuple(dict.fromkeys(name.rsplit(".", 1)[0] for name in matrices))
    own = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if foreign := [layer for layer in layers if layer not in own]:
        raise CheckpointError(
            f"{source} adapts {foreign[0]!r}, which this {type(model).__name__} does not have. Name the base it is for."
        )
    expected = find_layers(model, spec.lora_targets) if spec.lora_targets else ()
    if lacking := sorted(set(expected) - set(layers)):
        raise CheckpointError(
            f"{source} lacks the adapters of {len(lacking)} of {len(expected)} layers, e.g. {lacking[0]!r}. "
            "It is cut off, or for another size of the network."
        )
    ranks = {tensor.shape[0] for name, tensor in matrices.items() if name.endswith(".lora_A")}
    if len(ranks) != 1:
        raise CheckpointError(f"{source} holds adapters of ranks {sorted(ranks)}, expected one rank.")
    others = rename_keys({name: plain[name] for name, piece in pieces.items() if piece is None}, spec.renames)
    state = model.state_dict()
    base = {name: value for name, value in others.items() if name in state and value.shape == state[name].shape}
    (rank,) = ranks
    attach(model, layers, matrices, rule=rule, rank=rank, alpha=alpha, source=source)
    with torch.no_grad():
        # The layers kept their names when they were wrapped.
        state = model.state_dict()
        for name, value in base.items():
            state[name].copy_(value)
    return OfficialReport(
        layers=layers, rank=rank, base_entries=len(base), unexpected=tuple(sorted(set(others) - set(base)))
    )


def _plain(name: str) -> str:
    """Official names, without what peft put into them."""
    return name.replace("base_model.model.", "").replace(".base_layer.", ".")


def _our_layer(layer: str, spec: ModelSpec) -> str:
    (name,) = rename_keys({f"{layer}.weight": torch.empty(0)}, spec.renames)
    return name.removesuffix(".weight")
