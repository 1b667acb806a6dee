"""One call from a name to a network that is ready to use."""

import importlib
import logging
from pathlib import Path

import torch
from torch import nn

from distill3d import models
from distill3d.checkpoints.official import fitting_variant, load_official
from distill3d.checkpoints.read import read_metadata, read_weights
from distill3d.checkpoints.saved import HEADER, find_weights, load_saved
from distill3d.errors import CheckpointError
from distill3d.files import PathLike

logger = logging.getLogger(__name__)

WEIGHT_PATTERNS = ("*.safetensors", "*.pth", "*.pt", "*.ckpt")


def load_model(
    name: PathLike,
    weights: PathLike | None = None,
    variant: str | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A network in eval mode and float32.

    Args:
        name: a model of the registry, or one of our weight files or run folders, which know their model.
        weights: .safetensors or official .pth file, run folder, hub id (`owner/name`), or None for fresh weights.
            Our own files bring their configuration along; official ones must fit `variant`.
        variant: a named configuration of the model; None for the one that official weights fit, else its default.
        device: where to put it.

    Raises:
        ConfigError: no such model or variant.
        CheckpointError: the weights cannot be found, read, or do not fit.
    """
    if weights is None and str(name) not in models.names() and Path(name).exists():
        return load_saved(name)[0].to(device)
    spec = models.get(str(name))
    config = spec.variant(variant)
    if weights is None:
        return spec.build(config).float().eval().to(device)
    file = _find(weights)
    if HEADER in read_metadata(file):
        model, info = load_saved(file)
        if info.model != str(name):
            raise CheckpointError(f"{file} holds weights of {info.model!r}, not of {name!r}. Ask for {info.model!r}.")
        if variant is not None and info.config != config:
            raise CheckpointError(
                f"{file} was made with other settings than variant {variant!r} of {name!r}. "
                "Leave the variant out: the file brings its own settings."
            )
        return model.to(device)
    tensors = read_weights(file)
    if variant is None:
        variant = fitting_variant(spec, tensors, source=str(file))
        logger.info("%s fits variant %s of %s", file, variant, name)
    model = spec.build(spec.variant(variant))
    load_official(model, spec, tensors, source=str(file))
    return model.float().eval().to(device)


def _find(weights: PathLike) -> Path:
    """A local file: the one named, that of a run folder, or one fetched from the hub."""
    path = Path(weights)
    if path.exists():
        return find_weights(path)
    text = str(weights)
    looks_local = path.suffix in {pattern[1:] for pattern in WEIGHT_PATTERNS} or text.startswith((".", "/", "~"))
    if text.count("/") != 1 or looks_local:
        raise CheckpointError(
            f"There is no weight file or run folder at {weights}, and it is no hub id (owner/name) either."
        )
    return _fetch(text)


def _fetch(hub_id: str) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise CheckpointError(
            f"{hub_id} is not a local path; to fetch it from the hub, install the extra: pip install 'distill3d[hub]'."
        ) from error
    try:
        folder = Path(hub.snapshot_download(hub_id, allow_patterns=["*.safetensors", "*.json"]))
        files = sorted(folder.rglob("*.safetensors"))
        if not files:
            folder = Path(hub.snapshot_download(hub_id, allow_patterns=list(WEIGHT_PATTERNS)))
            files = sorted(file for pattern in WEIGHT_PATTERNS for file in folder.rglob(pattern))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        # No network, no such repository, or no permission: the hub's classes are OSErrors or ValueErrors.
        reason = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(
            f"Cannot fetch {hub_id} from the hub ({reason}). Check the name and the connection, "
            "or download the weights elsewhere and give their path."
        ) from error
    if len(files) != 1:
        listed = ", ".join(str(file.relative_to(folder)) for file in files[:5]) or "none"
        raise CheckpointError(
            f"{hub_id} holds {len(files)} weight files ({listed}), expected one. "
            "Download the right one and give its path."
        )
    return files[0]
