"""Weights from the hub: out of its cache without asking the network, else downloaded, once and resumably."""

import importlib
import logging
from pathlib import Path
from typing import Any

from distill3d.checkpoints.locate import SUFFIXES, choose_weights, is_index, read_index, weight_files
from distill3d.errors import CheckpointError

logger = logging.getLogger(__name__)


def fetch(hub_id: str) -> Path:
    """The weight file (or index of shards) of a repository, on this machine.

    What the hub's cache holds whole is taken as it is, though the hub may have something newer by now. The hub's own
    client downloads the rest: it shows progress, and goes on where an interrupted download stopped.

    Args:
        hub_id: owner/name.

    Raises:
        CheckpointError: the client is not installed, the repository cannot be had, or its weights are not clear.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise CheckpointError(
            f"{hub_id} is not a local path; to fetch it from the hub, install the extra: pip install 'distill3d[hub]'."
        ) from error
    cached = _cached(hub, hub_id)
    if cached is not None:
        logger.info("%s comes from the hub's cache: %s", hub_id, cached)
        return cached
    try:
        chosen = _only(choose_weights(hub.list_repo_files(hub_id)), hub_id)
        logger.info("fetching %s of %s from the hub", chosen, hub_id)
        path = Path(hub.snapshot_download(hub_id, allow_patterns=[chosen, "config.json"])) / chosen
        if is_index(path):
            folder = chosen.rpartition("/")[0]
            shards = [f"{folder}/{name}".lstrip("/") for name in read_index(path)]
            hub.snapshot_download(hub_id, allow_patterns=shards)
    except (OSError, ValueError) as error:
        # No network, no such repository, no permission, disk full: the client's classes are OSErrors or ValueErrors.
        reason = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(
            f"Cannot fetch {hub_id} from the hub ({reason}). Check the name and the connection, "
            "or download the weights elsewhere and give their path."
        ) from error
    if not path.is_file():
        raise CheckpointError(f"The hub's client did not bring {chosen} of {hub_id}; expected it at {path}. Try again.")
    weight_files(path)
    return path


def revision(path: Path) -> str | None:
    """The commit of the repository that a file of the hub's cache belongs to; None for any other file."""
    for parent in path.parents:
        if parent.parent.name == "snapshots":
            return parent.name
    return None


def _cached(hub: Any, hub_id: str) -> Path | None:
    """The weights in the cache, if they are whole."""
    try:
        folder = Path(hub.snapshot_download(hub_id, local_files_only=True))
    except (OSError, ValueError):  # not there; whatever else is wrong, the real attempt tells
        return None
    names = [str(file.relative_to(folder).as_posix()) for file in folder.rglob("*") if file.is_file()]
    found = choose_weights(names)
    if not found:
        return None
    path = folder / _only(found, hub_id)
    try:
        weight_files(path)
    except CheckpointError:
        return None  # some shards are still to come
    return path


def _only(found: list[str], hub_id: str) -> str:
    if len(found) != 1:
        listed = ", ".join(found[:5]) or f"none ending in {', '.join(SUFFIXES)}"
        raise CheckpointError(
            f"{hub_id} holds {len(found)} weight files ({listed}), expected one. "
            "Download the right one and give its path."
        )
    return found[0]
