"""One call from a name to a network that is ready to use, and the record of what was loaded."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill3d import models
from distill3d.checkpoints import hub
from distill3d.checkpoints.build import build_empty
from distill3d.checkpoints.licences import official_licence, tell_licence
from distill3d.checkpoints.locate import INDEX, SUFFIXES, weight_files
from distill3d.checkpoints.official import fitting_variant, load_official
from distill3d.checkpoints.read import read_metadata, read_weights
from distill3d.checkpoints.saved import HEADER, find_weights, load_saved, read_info
from distill3d.errors import CheckpointError
from distill3d.files import PathLike

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadedInfo:
    """Which weights a network was given: what a result needs to name them, and to be bound by their licence."""

    model: str
    """Name in the registry of models."""
    source: str | None
    """What was asked for: a path or hub id; None for fresh weights."""
    files: tuple[Path, ...] = ()
    """What was read."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Of each file, in hexadecimal, by its name."""
    revision: str | None = None
    """The commit of the hub's repository."""
    licence: str = "unknown"
    """Of the weights; passes on to what is made from them."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the header of our own files tells besides."""

    def plain(self) -> dict[str, Any]:
        """As JSON values, without the paths of this machine."""
        return {"sha256": dict(self.sha256), "revision": self.revision, "licence": self.licence}


def load_model(
    name: PathLike,
    weights: PathLike | None = None,
    variant: str | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A network in eval mode and float32.

    Args:
        name: a model of the registry, or one of our weight files or run folders, which know their model.
        weights: a file (.safetensors, .pth, .pt, .ckpt, .bin or the .index.json of shards), a run folder or folder of
            official weights, a hub id (`owner/name`), or None for fresh random weights, which is warned about.
            Our own files bring their configuration along; official ones must fit `variant`.
        variant: a named configuration of the model; None for the one that official weights fit, else its default.
        device: where to put it.

    Raises:
        ConfigError: no such model or variant.
        CheckpointError: the weights cannot be found, read, or do not fit.
    """
    return load_with_info(name, weights, variant, device)[0]


def load_with_info(
    name: PathLike,
    weights: PathLike | None = None,
    variant: str | None = None,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, LoadedInfo]:
    """`load_model`, and the record of what was loaded: files, their SHA-256, licence.

    Raises:
        ConfigError: no such model or variant.
        CheckpointError: the weights cannot be found, read, or do not fit.
    """
    if weights is None and str(name) not in models.names() and Path(name).exists():
        return _load_own(find_weights(name), str(name), device)
    spec = models.get(str(name))
    config = spec.variant(variant)
    if weights is None:
        logger.warning(
            "%s has fresh random weights and knows nothing; give weights=PATH_OR_HUB_ID unless it is to be trained.",
            name,
        )
        return spec.build(config).float().eval().to(device), LoadedInfo(model=str(name), source=None)
    file = _find(weights)
    if HEADER in read_metadata(file):
        saved = read_info(file)
        if saved.model != str(name):
            raise CheckpointError(f"{file} holds weights of {saved.model!r}, not of {name!r}. Ask for {saved.model!r}.")
        if variant is not None and saved.config != config:
            raise CheckpointError(
                f"{file} was made with other settings than variant {variant!r} of {name!r}. "
                "Leave the variant out: the file brings its own settings."
            )
        return _load_own(file, str(weights), device)
    tensors = read_weights(file)
    if variant is None:
        variant = fitting_variant(spec, tensors, source=str(file))
        logger.info("%s fits variant %s of %s", file, variant, name)
    model = build_empty(spec.build, spec.variant(variant))
    load_official(model, spec, tensors, source=str(file))
    licence = official_licence(spec, str(weights), str(file))
    tell_licence(licence, str(weights))
    return model.float().eval().to(device), _record(file, str(name), str(weights), licence, {})


def file_sha256(path: PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_own(file: Path, source: str, device: torch.device | str) -> tuple[nn.Module, LoadedInfo]:
    model, info = load_saved(file)
    licence = str(info.meta.get("licence", "unknown"))
    return model.to(device), _record(file, info.model, source, licence, info.meta)


def _record(file: Path, model: str, source: str, licence: str, meta: Mapping[str, Any]) -> LoadedInfo:
    files = tuple(weight_files(file))
    sha256 = {path.name: file_sha256(path) for path in files}
    for path in files:
        logger.info("%s: sha256 %s", path, sha256[path.name])
        _check_blob(path, sha256[path.name])
    return LoadedInfo(
        model=model,
        source=source,
        files=files,
        sha256=sha256,
        revision=hub.revision(file),
        licence=licence,
        meta=meta,
    )


def _check_blob(path: Path, sha256: str) -> None:
    """The hub's cache names its large files after their SHA-256: a file of another value has changed on this disk."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and len(blob.name) == len(sha256) and blob.name != sha256:
        raise CheckpointError(
            f"{path} is not what the hub gave: its SHA-256 is {sha256}, expected {blob.name}. "
            f"Remove {blob} and fetch it again."
        )


def _find(weights: PathLike) -> Path:
    """A local file: the one named, that of a folder, or one fetched from the hub."""
    path = Path(weights).expanduser()
    if path.exists():
        return find_weights(path)
    text = str(weights)
    looks_local = text.endswith((*SUFFIXES, INDEX)) or text.startswith((".", "/", "~"))
    if text.count("/") != 1 or looks_local:
        raise CheckpointError(
            f"There is no weight file or run folder at {weights}, and it is no hub id (owner/name) either. "
            f"Expected {', '.join(SUFFIXES)}, an index of shards, a folder of these, or a hub id."
        )
    return hub.fetch(text)
