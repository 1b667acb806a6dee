"""Which of many files are the weights: in a folder, in a repository's listing, and behind the index of shards."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from distill3d.errors import CheckpointError
from distill3d.files import PathLike

INDEX = ".index.json"
"""What ends the name of the list that says in which shard each tensor lies."""
SAFE = (".safetensors",)
PICKLED = (".pth", ".pt", ".ckpt", ".bin")
SUFFIXES = SAFE + PICKLED
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")


def choose_weights(names: Iterable[str]) -> list[str]:
    """The files that could be the weights among those of a folder, best kind only; one if the choice is clear.

    Files at the top go before those in folders, safetensors before pickles, an index stands for its shards.
    """
    names = sorted(names)
    for kind in (SAFE, PICKLED):
        files = [name for name in names if name.endswith(kind)]
        indices = [name for name in names if name.endswith(tuple(suffix + INDEX for suffix in kind))]
        if indices:
            files = [name for name in files if not _SHARD.search(name)] + indices
        if files:
            return [name for name in files if "/" not in name] or files
    return []


def is_index(path: PathLike) -> bool:
    """Whether this file lists shards rather than holding tensors."""
    return str(path).endswith(INDEX)


def read_index(path: PathLike) -> dict[str, list[str]]:
    """The shards of an index: file name -> the tensors that lie in it.

    Raises:
        CheckpointError: it cannot be read, lists nothing, or leads out of its own folder.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no readable index of shards ({error}). Fetch it again.") from error
    weight_map = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{path} has no weight_map; expected the index of shards, which says for each tensor the file it lies in."
        )
    shards: dict[str, list[str]] = {}
    for tensor, shard in weight_map.items():
        # An index from elsewhere must not make us open files of the user's.
        if not isinstance(shard, str) or shard in ("", ".", "..") or "/" in shard or "\\" in shard:
            raise CheckpointError(f"{path} says that {tensor!r} lies in {shard!r}; expected a file beside the index.")
        shards.setdefault(shard, []).append(tensor)
    return shards


def weight_files(path: PathLike) -> list[Path]:
    """Every file that holds a part of these weights: the file itself, or an index and its shards.

    Raises:
        CheckpointError: the index is damaged, or shards are missing.
    """
    path = Path(path)
    if not is_index(path):
        return [path]
    shards = sorted(path.parent / name for name in read_index(path))
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise CheckpointError(
            f"{path} lists {len(shards)} shards, {len(absent)} of them missing beside it: {', '.join(absent[:5])}. "
            "Fetch the rest, or download the weights again."
        )
    return [path, *shards]
