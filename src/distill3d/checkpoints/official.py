"""Official weights in and out: a network's own files, and the encoders that a student may start from."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from distill3d.checkpoints.keys import load_strict, merge_aliases, rename_keys, restore_keys, strip_prefixes
from distill3d.checkpoints.licences import tell_licence
from distill3d.checkpoints.read import read_weights
from distill3d.errors import CheckpointError
from distill3d.files import PathLike
from distill3d.models import ModelSpec

logger = logging.getLogger(__name__)

ENCODER_LICENCES = {"dune": "NAVER non-commercial", "dinov2": "Apache-2.0"}


def load_official(model: nn.Module, spec: ModelSpec, state_dict: Mapping[str, Tensor], *, source: str) -> None:
    """Load weights under official names, strictly.

    Args:
        model: built from one of the configurations of `spec`; changed in place.
        spec: knows the names.
        state_dict: tensors under official names, with or without aliases and the prefix of a training framework.
        source: where they come from, for the words of an error.

    Raises:
        CheckpointError: they do not fit; then nothing has changed.
    """
    load_strict(model, _under_our_names(model, spec, state_dict, source=source), source=source)


def fitting_variant(spec: ModelSpec, state_dict: Mapping[str, Tensor], *, source: str) -> str:
    """The first variant whose every name and shape these official weights have; the default one if there is none.

    Variants that differ in other things than weights look alike here: name them.
    """
    for name, config in spec.variants.items():
        with torch.device("meta"):
            model = spec.build(config)
        expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
        found = _under_our_names(model, spec, state_dict, source=source)
        if expected == {key: tensor.shape for key, tensor in found.items()}:
            return name
    return next(iter(spec.variants))


def _under_our_names(
    model: nn.Module, spec: ModelSpec, state_dict: Mapping[str, Tensor], *, source: str
) -> dict[str, Tensor]:
    own = set(restore_keys(model.state_dict(), spec.renames))
    # What our own names start with is no framework's addition.
    foreign = [prefix for prefix in spec.prefixes if not any(name.startswith(prefix) for name in own)]
    weights = strip_prefixes(state_dict, foreign)
    weights = merge_aliases(weights, spec.aliases, source=source)
    weights = _fill_stand_ins(weights, spec.stand_ins, source=source)
    # Judged by the official name, and only where the model has no place for it.
    dropped = [name for name in weights if name not in own and any(part in name for part in spec.ignored)]
    for name in dropped:
        del weights[name]
    if dropped:
        logger.debug("%s: left out %s", source, ", ".join(dropped))
    return rename_keys(weights, spec.renames)


def _fill_stand_ins(
    weights: Mapping[str, Tensor], stand_ins: Sequence[tuple[str, str]], *, source: str
) -> dict[str, Tensor]:
    """Copy groups of tensors that the file lacks from those that stand in for them."""
    filled = dict(weights)
    for lacking, present in stand_ins:
        if not any(name.startswith(lacking) for name in weights):
            copied = {name: tensor for name, tensor in weights.items() if name.startswith(present)}
            if copied:
                logger.info("%s has no %s*; %s* takes its place", source, lacking, present)
            filled.update({lacking + name.removeprefix(present): tensor for name, tensor in copied.items()})
    return filled


def to_official(model: nn.Module, spec: ModelSpec, *, aliases: bool = True) -> dict[str, Tensor]:
    """The weights under official names, sharing memory with the model.

    Args:
        model: a network of `spec`.
        spec: knows the names.
        aliases: also give the second names that upstream files hold (without them safetensors can store the result).
    """
    official = restore_keys({name: tensor.detach() for name, tensor in model.state_dict().items()}, spec.renames)
    if aliases:
        for name in list(official):
            for alias, known in spec.aliases:
                if known in name:
                    official[name.replace(known, alias, 1)] = official[name]
    return official


def load_encoder(
    encoder: nn.Module, weights: PathLike | Mapping[str, Tensor], *, source: str | None = None
) -> Literal["dune", "dinov2"]:
    """Load a DUNE or DINOv2 encoder into the encoder of a student (a `DinoViT`), and nothing else.

    Args:
        encoder: e.g. `model.encoder`; its width, depth, registers and position table must be those of the file.
        weights: a file, or tensors under the names of the file.
        source: where the tensors come from, for the words of an error.

    Returns:
        Whose encoder it is. DUNE's licence is non-commercial and passes on to what is trained from it; DINOv2's is
        Apache-2.0.

    Raises:
        CheckpointError: they do not fit; then nothing has changed.
    """
    if not isinstance(weights, Mapping):
        source = source or str(weights)
        weights = read_weights(weights)
    source = source or "these weights"
    if any("encoder." in name for name in weights):
        weights = {name: tensor for name, tensor in weights.items() if "encoder." in name}
    plain = {re.sub(r"module\.|_orig_mod\.|encoder\.", "", name): tensor for name, tensor in weights.items()}
    # DUNE keeps its blocks in one chunk: blocks.0.<i>.*; the files of DINOv2 say blocks.<i>.*
    chunked = any(re.match(r"blocks\.0\.\d+\.", name) for name in plain)
    family: Literal["dune", "dinov2"] = "dune" if chunked else "dinov2"
    if chunked:
        plain = rename_keys(plain, [("blocks.0.", "blocks.")])
    if not any(name.startswith("blocks.") for name in plain):
        raise CheckpointError(f"{source} holds no encoder blocks; expected a DUNE or DINOv2 vision transformer.")
    if not hasattr(encoder, "mask_token"):
        plain.pop("mask_token", None)
    elif "mask_token" in plain:
        # Absent or of one axis more in some releases; never read by us either way.
        plain["mask_token"] = plain["mask_token"].reshape(1, -1)
    recipe = getattr(encoder, "position_resize", None)
    if recipe is not None and recipe != ("offset" if family == "dune" else "antialias"):
        logger.warning("%s is a %s encoder, but its position table will be resized by %r", source, family, recipe)
    load_strict(encoder, plain, source=source)
    tell_licence(ENCODER_LICENCES[family], source)
    return family
