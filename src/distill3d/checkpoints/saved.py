"""Our own weight files: safetensors whose header says which network this is, how it was configured and whence."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from distill3d import models
from distill3d.checkpoints.build import build_empty
from distill3d.checkpoints.keys import load_strict
from distill3d.checkpoints.licences import tell_licence
from distill3d.checkpoints.locate import choose_weights
from distill3d.checkpoints.read import read_metadata, read_weights
from distill3d.errors import CheckpointError, ConfigError
from distill3d.files import PathLike, atomic_write_bytes

FORMAT = 1
HEADER = "distill3d"
"""The one entry of the safetensors header: JSON with format, model, config and meta."""
RUN_FILES = ("student.safetensors", "weights.safetensors", "best.safetensors", "last.safetensors")
"""Where a run folder keeps its finished weights, in order of preference."""


@dataclass(frozen=True, kw_only=True)
class SavedInfo:
    """What the header of a weight file says."""

    path: Path
    model: str
    """Name in the registry of models."""
    config: Any
    """The configuration the network was built from."""
    meta: Mapping[str, Any]
    """Licence and provenance: whatever was handed to `save_model`."""


def save_model(
    path: PathLike,
    model: nn.Module,
    *,
    model_name: str,
    config: Any,
    meta: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> Path:
    """Write the weights with all it takes to build the network again without asking anyone.

    Args:
        path: a name ending in .safetensors; replaced in one step.
        model: the network.
        model_name: its name in the registry.
        config: its configuration, a dataclass.
        meta: licence, provenance, versions, scores: anything JSON can hold. "licence" is always there
            (default: unknown).
        dtype: store floating-point weights in this precision, e.g. torch.float16; None to keep theirs.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, not {path.name!r}")
    tensors = {}
    for name, tensor in model.state_dict().items():
        kept = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        tensors[name] = kept.detach().cpu().contiguous()
    header = {
        "format": FORMAT,
        "model": model_name,
        "config": dataclasses.asdict(config),
        "meta": {"licence": "unknown", **meta},
    }
    encoded = safetensors.torch.save(tensors, {HEADER: json.dumps(header, sort_keys=True)})
    atomic_write_bytes(path, encoded)
    return path


def load_saved(path: PathLike) -> tuple[nn.Module, SavedInfo]:
    """Build the network of a weight file or run folder and load it: eval mode, float32, on the CPU.

    Raises:
        CheckpointError: no such file, not one of ours, from a newer version, damaged, or made for another network.
    """
    file = find_weights(path)
    info = read_info(file)
    model = build_empty(models.get(info.model).build, info.config)
    load_strict(model, read_weights(file), source=str(file))
    tell_licence(str(info.meta.get("licence", "unknown")), str(file))
    return model.float().eval(), info


def read_info(path: PathLike) -> SavedInfo:
    """Only the header of a weight file or run folder.

    Raises:
        CheckpointError: no such file, not one of ours, or from a newer version.
    """
    file = find_weights(path)
    text = read_metadata(file).get(HEADER)
    if text is None:
        raise CheckpointError(
            f"{file} does not say which network it belongs to, so it was not written by distill3d. "
            "Name the model it is for (load_model(NAME, weights=...), or --model NAME --weights FILE)."
        )
    try:
        header = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{file} has a header that is not JSON ({error}). Write the file again.") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} is a weight file of format {header.get('format')!r}, and we know {FORMAT}. Update distill3d."
        )
    try:
        config = _restore_config(models.get(header["model"]).config, header["config"])
    except (ConfigError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{file} is for {header.get('model')!r} with settings that this version does not know ({error}). "
            "Update distill3d, or install the package that brings the model."
        ) from error
    return SavedInfo(path=file, model=header["model"], config=config, meta=header.get("meta", {}))


def find_weights(path: PathLike) -> Path:
    """The weight file that a path means: itself, or that of a run folder or a folder of official weights.

    Official weights in shards are found by their index.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        for name in RUN_FILES:
            if (path / name).is_file():
                return path / name
        found = choose_weights(file.name for file in path.iterdir() if file.is_file())
        if len(found) == 1:
            return path / found[0]
        if found:
            raise CheckpointError(
                f"The folder {path} holds {len(found)} weight files ({', '.join(found[:5])}), expected one. "
                "Name the right one."
            )
        raise CheckpointError(
            f"The folder {path} holds no finished weights (looked for {', '.join(RUN_FILES)}), nor those of others. "
            "Finish the run with --resume, or name a weight file."
        )
    raise CheckpointError(f"There is neither a weight file nor a run folder at {path}.")


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all weights, in hexadecimal: equal for equal networks anywhere."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{values.dtype}:{tuple(values.shape)};".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _restore_config(kind: type, values: Mapping[str, Any]) -> Any:
    # JSON knows lists only; every sequence in our configurations is a tuple.
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
