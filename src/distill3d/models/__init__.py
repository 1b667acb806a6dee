"""The registry of networks: one file per architecture, found by name, here or in another package's entry points."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from distill3d.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINTS = "distill3d.models"
"""Other packages add networks under this group: name = "package.module:SPEC"."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that the rest of the library needs to know of a network."""

    build: "Callable[[Any], nn.Module]"
    """Makes the network from one of its configurations, with fresh weights, on the CPU."""
    config: type
    """The class of the configurations: a frozen dataclass."""
    views: Literal["joint", "single", "pair", "stream"]
    """How many views the network takes at a time: all at once, one, two, or one after the other."""
    variants: Mapping[str, Any]
    """Named configurations; the first is the default."""
    renames: tuple[tuple[str, str], ...] = ()
    """Parts of the official keys -> ours, applied in order; read backwards on export."""
    aliases: tuple[tuple[str, str], ...] = ()
    """Second official names of one tensor -> the official name that `renames` knows."""
    stand_ins: tuple[tuple[str, str], ...] = ()
    """Starts of official keys that some files lack -> the start of those whose tensors then take their place."""
    prefixes: tuple[str, ...] = ()
    """What training frameworks put before every official key; cut off unless the network's own keys have it."""
    ignored: tuple[str, ...] = ()
    """Official keys (parts of them) that we knowingly leave out."""
    lora_targets: str | None = None
    """Pattern of the layers that adapters go to by default."""
    patch_size: int | None = None
    """Both sides of an image must be multiples of this; None where a configuration decides."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Licences of the official weights, by where they come from."""
    reference_licence: str = "none published"
    """Licence of the authors' own code, of which nothing is used here: every network is our own, under Apache-2.0."""

    def variant(self, name: str | None = None) -> Any:
        """The configuration called `name`, or the default one.

        Raises:
            ConfigError: there is none of that name.
        """
        if name is None:
            return next(iter(self.variants.values()))
        if name not in self.variants:
            raise ConfigError(f"There is no variant {name!r} of this model; choose one of: {', '.join(self.variants)}.")
        return self.variants[name]


def names() -> list[str]:
    """Every network that `get` knows, in alphabetical order."""
    own = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return sorted({*own, *(point.name for point in entry_points(group=ENTRY_POINTS))})


@functools.cache
def get(name: str) -> ModelSpec:
    """The network called `name`.

    Raises:
        ConfigError: no such network, or another package's entry point does not lead to a `ModelSpec`.
    """
    if name not in names():
        raise ConfigError(f"There is no model {name!r}; choose one of: {', '.join(names())}.")
    points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
    spec = points[0].load() if points else importlib.import_module(f"{__name__}.{name}").SPEC
    if not isinstance(spec, ModelSpec):
        raise ConfigError(f"The entry point {name!r} gives a {type(spec).__name__}, expected a ModelSpec.")
    return spec
