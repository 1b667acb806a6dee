"""Any network as a teacher: one of the registry, a weights file, or the folder of a training run."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d import models
from distill3d.checkpoints import load_with_info, weights_hash
from distill3d.devices import autocast
from distill3d.errors import CheckpointError, ConfigError
from distill3d.geometry.monocular import solve_affine
from distill3d.nn.chunks import max_views_per_chunk
from distill3d.teachers import TeacherSpec
from distill3d.teachers.labels import content_seed, world_from_local
from distill3d.types import Prediction, Views, collate, map_tensors


class NetworkTeacher:
    """A network that sees all views of a group at once, or each on its own.

    What a monocular network leaves open (MoGe: the focal length and a shift of z) is solved for, view by view.

    With `align`, each world map is replaced by the nearest similarity of its local map, as in the paper's cache: the
    two then agree, poses come with them, and the cache keeps only one of them. A network that draws random numbers
    draws them from the photos and `seed`, so that a rerun gives the same labels.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        licence: str = "unknown",
        align: bool = True,
        seed: int = 0,
        head_chunk: int | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
        max_views: int | None = None,
        meta: Mapping[str, Any] | None = None,
        files_sha256: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._files_sha256 = sorted((files_sha256 or {}).values())
        self.meta: Mapping[str, Any] = meta or {}
        self.licence = licence
        self.model = model.eval()
        self.weights_hash: str | None = weights_hash(model)
        self._max_views = max_views
        self._align = align
        self._seed = seed
        self._head_chunk = head_chunk
        self._precision = precision
        accepted = inspect.signature(model.forward).parameters
        self._takes_chunks = "head_chunk" in accepted
        # A network whose configuration says that it draws nothing may see a whole batch at once.
        draws = getattr(getattr(model, "config", None), "view_ids", "random") == "random"
        self._needs_generator = "generator" in accepted and draws

    def settings(self) -> dict[str, Any]:
        """Everything besides the weights that decides the labels, and the SHA-256 of the files that these came from."""
        config = getattr(self.model, "config", None)
        shown = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else {}
        files = {"files_sha256": self._files_sha256} if self._files_sha256 else {}
        precision = {} if self._precision == "fp32" else {"precision": self._precision}
        return {"align": self._align, "seed": self._seed, "config": shown, **files, **precision}

    @torch.no_grad()
    def predict(self, views: Views) -> Prediction:
        """Labels in float32, on the device of the views.

        Raises:
            ConfigError: more views than the network sees at a time.
        """
        if self._max_views is not None and views.images.shape[1] > self._max_views:
            raise ConfigError(
                f"{self.name} sees {self._max_views} views at a time, a group has {views.images.shape[1]}. "
                f"Choose groups of {self._max_views}, or another teacher."
            )
        parameter = next(self.model.parameters(), None)
        device = views.images.device if parameter is None else parameter.device
        images = views.images.to(device)
        found: Prediction
        options: dict[str, Any] = {}
        if self._takes_chunks:
            size = (images.shape[-2], images.shape[-1])
            options["head_chunk"] = self._head_chunk or max_views_per_chunk(self.model, size)
        with autocast(self._precision, device):
            if self._needs_generator:
                rows = torch.split(images, 1)
                found = collate([self.model(row, generator=self._generator(row[0]), **options) for row in rows])
            else:
                found = self.model(images, **options)
        found = map_tensors(found, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
        if getattr(self.model, "affine", False):
            found = solve_affine(found)
        if self._align:
            found = world_from_local(found, None if views.valid is None else views.valid.to(device))
        return map_tensors(found, lambda tensor: tensor.to(views.images.device))

    def _generator(self, images: Float[Tensor, "views 3 height width"]) -> torch.Generator:
        return torch.Generator().manual_seed(content_seed(images, self._seed))


def teacher_spec(name: str) -> TeacherSpec:
    """The teacher that a model name, weights file or run folder stands for."""
    build: Callable[..., NetworkTeacher] = partial(load_network, name)
    return TeacherSpec(build=build, description=f"the network {name}, with the weights that you give")


def load_network(
    what: str,
    *,
    weights: str | Path | None = None,
    variant: str | None = None,
    device: torch.device | str = "cpu",
    licence: str | None = None,
    align: bool = True,
    seed: int = 0,
    head_chunk: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> NetworkTeacher:
    """Make a teacher of a network.

    Args:
        what: a model of the registry (then with `weights`), a weights file, or a run folder.
        weights: a file or run folder, or a hub id.
        variant: a named configuration, for official weights.
        device: where it computes.
        licence: of its weights, if neither the file nor the registry says.
        align: see `NetworkTeacher`.
        seed: of its random numbers.
        head_chunk: views per pass of the heads; None for as many as fit into a budget. It changes no value.
        precision: what its layers compute in; its labels are float32 in each.

    Raises:
        CheckpointError: the weights cannot be found or do not fit, or none are named.
    """
    named = what in models.names()
    source = weights if named else what
    if source is None:
        raise CheckpointError(
            f"The teacher {what!r} needs weights: fresh ones have nothing to teach. Give a file, run folder or hub id."
        )
    model, info = load_with_info(what, weights, variant, device)
    name = info.model
    spec = models.get(name) if name in models.names() else None
    return NetworkTeacher(
        model,
        name=name,
        licence=licence or info.licence,
        align=align,
        seed=seed,
        head_chunk=head_chunk,
        precision=precision,
        max_views=2 if spec is not None and spec.views == "pair" else None,
        meta=info.meta,
        files_sha256=info.sha256,
    )
