"""Tensors out of a file, whatever its format, and nothing but tensors: no code of the file is ever run."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distill3d.checkpoints.locate import is_index, read_index, weight_files
from distill3d.errors import CheckpointError
from distill3d.files import PathLike

CONTAINERS = ("state_dict", "model", "teacher", "student", "net")
"""Where training frameworks keep the weights inside a pickled dictionary."""


def read_weights(path: PathLike) -> dict[str, Tensor]:
    """Every tensor of a .safetensors file, a PyTorch pickle or an index of shards, by the file's names, on the CPU.

    Pickles are read with `weights_only`; `argparse.Namespace`, which files of DUNE and DUSt3R carry, is let through.

    Raises:
        CheckpointError: no such file, truncated, of no known format, a pickle that wants to run code, or no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}; expected .safetensors, .pth, .pt or .ckpt weights.")
    if is_index(path):
        return _read_shards(path)
    if _is_safetensors(path):
        return _read_safetensors(path)
    if _is_pointer(path):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, a text that stands for the weights; expected the weights themselves. "
            "Fetch them with `git lfs pull`, or download the file."
        )
    if not _is_pickle(path):
        raise CheckpointError(
            f"{path} holds no weights that we can read: neither safetensors nor a PyTorch file, "
            "or cut off at the start. "
            "Fetch it again, or check that it is the file you meant."
        )
    return _tensors_of(_read_pickle(path), path)


def read_metadata(path: PathLike) -> dict[str, str]:
    """The texts in the header of a .safetensors file; empty for other files.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = Path(path)
    if not path.is_file() or not _is_safetensors(path):
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(_damaged(path, error)) from error


def _start(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened ({error.strerror}). Check its permissions.") from error


def _is_safetensors(path: Path) -> bool:
    # Eight bytes of length, then JSON.
    start = _start(path, 9)
    return path.suffix == ".safetensors" or (len(start) == 9 and start[8:] == b"{" and start[6:8] == b"\0\0")


def _is_pointer(path: Path) -> bool:
    return _start(path, 23) == b"version https://git-lfs"


def _is_pickle(path: Path) -> bool:
    return _start(path, 2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise CheckpointError(_damaged(path, error)) from error
    return _need_tensors(weights, path)


def _read_shards(index: Path) -> dict[str, Tensor]:
    weight_files(index)  # says at once which of many large files are missing
    weights: dict[str, Tensor] = {}
    for name, tensors in read_index(index).items():
        found = read_weights(index.parent / name)
        absent = [tensor for tensor in tensors if tensor not in found]
        if absent:
            raise CheckpointError(
                f"{index.parent / name} lacks {len(absent)} of the {len(tensors)} tensors that {index.name} expects in "
                f"it, e.g. {absent[0]!r}. Index and shards are not of one download; fetch them again."
            )
        weights.update({tensor: found[tensor] for tensor in tensors})
    return weights


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path} holds more than tensors ({_first_line(error)}); we never run what a file brings along. "
                "Save its state dict alone, best as .safetensors."
            ) from error
        raise CheckpointError(_damaged(path, error)) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:  # what torch raises on truncated archives
        raise CheckpointError(_damaged(path, error)) from error


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside what a pickle held."""
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors.")
    return _need_tensors({str(name): value for name, value in content.items() if isinstance(value, Tensor)}, path)


def _need_tensors(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    if not weights:
        raise CheckpointError(f"{path} holds no tensors; expected the weights of a network.")
    return weights


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged or cut off ({_first_line(error)}). Fetch or write it again."


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:160] or type(error).__name__
