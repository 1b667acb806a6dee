"""Teachers: whatever can say where the points of some views are. One file per teacher, found by name.

Besides the files here, every network of `distill3d.models` is a teacher, and so is every weights file and run folder.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from distill3d import models
from distill3d.errors import ConfigError

if TYPE_CHECKING:
    from distill3d.data.fit import ImageFit
    from distill3d.data.sampling import ViewGroup
    from distill3d.data.table import Manifest
    from distill3d.types import Prediction, Views

ENTRY_POINTS = "distill3d.teachers"
"""Other packages add teachers under this group: name = "package.module:TEACHER"."""
_NO_TEACHERS = ("labels", "mask", "noise", "run", "zoo")


@runtime_checkable
class Teacher(Protocol):
    """Turns views into labels. The same views give the same labels, whenever and wherever they are asked for."""

    @property
    def name(self) -> str:
        """What the header of a cache calls it."""

    @property
    def licence(self) -> str:
        """Of the labels it makes."""

    @property
    def weights_hash(self) -> str | None:
        """Of the weights it holds; None if it holds none."""

    def settings(self) -> dict[str, Any]:
        """Everything else that decides the labels, as JSON values."""

    def predict(self, views: "Views") -> "Prediction":
        """Labels of a batch of view groups; world = camera of view 0 of each group."""


@runtime_checkable
class SceneTeacher(Teacher, Protocol):
    """A teacher that must be told which frames the views are, because it looks at the rest of the scene as well."""

    def predict_group(self, views: "Views", manifest: "Manifest", group: "ViewGroup", fit: "ImageFit") -> "Prediction":
        """Labels of one view group; `fit` is how its photos were laid out on the canvas of `views`."""


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """A teacher before it is made."""

    build: Callable[..., Teacher]
    """Makes it; takes its options as keywords."""
    description: str
    """One sentence for people who choose: what it knows, what it needs."""


def names() -> list[str]:
    """Every teacher that `get` knows by name, in alphabetical order."""
    own = {module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)} - set(_NO_TEACHERS)
    return sorted({*own, *(point.name for point in entry_points(group=ENTRY_POINTS)), *models.names()})


def get(name: str) -> TeacherSpec:
    """The teacher called `name`: one of ours, a network of the registry, or a weights file or run folder.

    Raises:
        ConfigError: there is none of that name, or an entry point does not lead to a `TeacherSpec`.
    """
    own = {module.name for module in pkgutil.iter_modules(__path__)} - set(_NO_TEACHERS)
    module = name.replace("-", "_")
    if module in own:
        spec = importlib.import_module(f"{__name__}.{module}").TEACHER
    elif points := [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]:
        spec = points[0].load()
    elif name in models.names() or Path(name).exists():
        spec = importlib.import_module(f"{__name__}.zoo").teacher_spec(name)
    else:
        raise ConfigError(
            f"There is no teacher {name!r}; choose one of: {', '.join(names())}, or give a weights file or run folder."
        )
    if not isinstance(spec, TeacherSpec):
        raise ConfigError(f"The teacher {name!r} gives a {type(spec).__name__}, expected a TeacherSpec.")
    return spec


def load(name: str, **options: Any) -> Teacher:
    """Make the teacher called `name`, ready to predict.

    Raises:
        ConfigError: no such teacher, or options that it does not take.
        CheckpointError: its weights are missing or do not fit.
    """
    build = get(name).build
    try:
        return build(**options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ConfigError(f"The teacher {name!r} does not take these options: {error}.") from error
