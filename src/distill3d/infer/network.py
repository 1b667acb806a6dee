"""One name, file or folder to a network that is ready to look at photos, with what is known about its training."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill3d import models, teachers
from distill3d.checkpoints import LoadedInfo, load_with_info, weights_hash
from distill3d.data.fit import ImageFit
from distill3d.errors import CheckpointError, ConfigError
from distill3d.files import PathLike
from distill3d.infer.reconstruct import predict
from distill3d.teachers.zoo import NetworkTeacher
from distill3d.types import Prediction, Views

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network with weights, and what its weight file says about them."""

    model: nn.Module
    label: str
    """What reports call it: the run's folder, the weight file, or the name of a shipped network."""
    architecture: str
    licence: str
    weights_hash: str
    fit: ImageFit | None
    """How photos were brought to size in training; None where the weights do not say."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the weight file holds: cache, training settings, licences."""
    files_sha256: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file that the weights were read from, by its name; empty for shipped networks."""

    @property
    def patch_size(self) -> int:
        """Both sides of an image are multiples of this."""
        found = getattr(getattr(self.model, "config", None), "patch_size", None)
        if found is None and self.architecture in models.names():
            found = models.get(self.architecture).patch_size
        return int(found or ImageFit().multiple)

    @property
    def most_views(self) -> int | None:
        """Views it can tell apart in one pass; None for any number."""
        config = getattr(self.model, "config", None)
        limit = getattr(config, "num_view_ids", None)
        return None if limit is None or getattr(config, "view_ids", "none") == "none" else int(limit)

    @property
    def num_views_trained(self) -> int | None:
        """Views of a training sample, at most; None where the weights do not say."""
        found = _inner(self.meta, "training", "settings").get("views")
        return found if isinstance(found, int) else None

    def choose_fit(self, long_side: int | None = None, mode: str | None = None) -> ImageFit:
        """Size for new photos: as in training, else 518 pixels in whole patches; what is given here goes before.

        Raises:
            ConfigError: a side or mode that cannot be.
        """
        whole = ImageFit().long_side // self.patch_size * self.patch_size  # 512 with patches of 16: no padding there
        known = self.fit or ImageFit(long_side=whole, multiple=self.patch_size)
        return ImageFit(
            long_side=known.long_side if long_side is None else long_side,
            multiple=self.patch_size,
            mode=known.mode if mode is None else mode,  # type: ignore[arg-type]  # checked by ImageFit
        )

    def predict(self, views: Views) -> Prediction:
        """What the network itself says about views of any batch; see `infer.reconstruct.predict`."""
        return predict(self.model, views)

    def summary(self) -> dict[str, Any]:
        """In plain values, for info files and the settings of predictions."""
        return {
            "name": self.label,
            "architecture": self.architecture,
            "licence": self.licence,
            "weights_sha256": self.weights_hash,
            "files_sha256": dict(self.files_sha256),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
        }


def open_network(
    what: PathLike,
    *,
    weights: PathLike | None = None,
    variant: str | None = None,
    device: torch.device | str = "cpu",
) -> Network:
    """Find and load a network.

    Args:
        what: a run folder, one of our weight files, a shipped network ("place"), or an architecture with `weights`.
        weights: for an architecture: a file, run folder or hub id.
        variant: for official weights: a named configuration.
        device: where to put it.

    Raises:
        ConfigError: nothing of this name, or an architecture with options that do not belong together.
        CheckpointError: weights that are missing, cannot be read, or do not fit the architecture.
    """
    name = str(what)
    if name in models.names():
        if weights is None:
            raise CheckpointError(
                f"{name} is an architecture: without weights it knows nothing. "
                "Name its weights with --weights, or give a run folder or weight file as the model."
            )
        model, info = load_with_info(name, weights, variant, device)
        return _described(model, info, label=Path(str(weights)).stem or name)
    for option, given in (("weights", weights), ("variant", variant)):
        if given is not None:
            raise ConfigError(
                f"{name} brings its own weights and settings, but --{option} {given} is given too. Leave it out, "
                f"or let the model be an architecture: {', '.join(models.names())}."
            )
    if Path(name).exists():
        model, info = load_with_info(name, device=device)
        path = Path(name)
        own = path.name if path.is_dir() else path.parent.name if path.stem == "student" else path.stem
        return _described(model, info, label=own or path.resolve().name)
    if name in teachers.names():
        teacher = teachers.load(name, **({} if name == "ground-truth" else {"device": device}))
        if not isinstance(teacher, NetworkTeacher):
            raise ConfigError(f"{name} is a teacher that looks up the truth, not a network that looks at photos.")
        return Network(
            model=teacher.model,
            label=name,
            architecture=type(teacher.model).__name__.lower(),
            licence=teacher.licence,
            weights_hash=weights_hash(teacher.model),
            fit=trained_fit(teacher.meta),
            meta=teacher.meta,
        )
    looks_like_path = "/" in name or Path(name).suffix != ""
    raise CheckpointError(
        f"There is no run folder or weight file at {name}."
        if looks_like_path
        else f"There is no model {name!r}: no run folder or weight file of this name, no shipped network (place), and "
        f"no architecture ({', '.join(models.names())}). Check the path, or see `distill3d models list`."
    )


def trained_fit(meta: Mapping[str, Any]) -> ImageFit | None:
    """The image size that a student was trained at, from the provenance in its weight file; None if it is not there."""
    found = _inner(meta, "cache", "image_fit")
    try:
        return ImageFit(**found) if found else None
    except (TypeError, ConfigError):
        logger.warning("the weights tell an image size that this version does not understand: %s", found)
        return None


def _described(model: nn.Module, info: LoadedInfo, *, label: str) -> Network:
    """Put together what the weights say about themselves, and the registry about official ones."""
    return Network(
        model=model,
        label=label,
        architecture=info.model,
        licence=info.licence,
        weights_hash=weights_hash(model),
        fit=trained_fit(info.meta),
        meta=info.meta,
        files_sha256=info.sha256,
    )


def _inner(values: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The mapping under a path of names, empty where there is none."""
    for name in names:
        found = values.get(name)
        values = found if isinstance(found, Mapping) else {}
    return values
