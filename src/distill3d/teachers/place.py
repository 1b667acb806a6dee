"""The small network that ships with the package. It knows one place, the demo's apartment, and nothing else.

On photos of anything else its labels are worthless; use it to try the chain without a download.
"""

from importlib import resources
from pathlib import Path

import torch

from distill3d.checkpoints import load_saved
from distill3d.errors import CheckpointError
from distill3d.teachers import TeacherSpec
from distill3d.teachers.zoo import NetworkTeacher

WEIGHTS = "weights/place.safetensors"
COMMAND = "tools/place_teacher.sh WORK_FOLDER"
"""Makes the weights."""


def load_place(
    *, align: bool = True, seed: int = 0, device: torch.device | str = "cpu", weights: str | Path | None = None
) -> NetworkTeacher:
    """The shipped teacher of the demo's place; `weights` for another file of its kind.

    Raises:
        CheckpointError: the weights are not in this installation; says which command makes them.
    """
    if weights is not None:
        return _teacher(Path(weights), align, seed, device)
    shipped = resources.files("distill3d").joinpath(WEIGHTS)
    if not shipped.is_file():
        raise CheckpointError(
            f"The weights of the place teacher ({WEIGHTS}) are not part of this installation. "
            f"Make them with `{COMMAND}`, or use the ground-truth teacher."
        )
    with resources.as_file(shipped) as path:
        return _teacher(path, align, seed, device)


def _teacher(path: Path, align: bool, seed: int, device: torch.device | str) -> NetworkTeacher:
    model, info = load_saved(path)
    licence = str(info.meta.get("licence", "unknown"))
    return NetworkTeacher(model.to(device), name="place", licence=licence, align=align, seed=seed, meta=info.meta)


TEACHER = TeacherSpec(
    build=load_place,
    description="a small network that ships with the package and knows only the place of the demo",
)
