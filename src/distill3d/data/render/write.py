"""Rendered scenes on disk, as annotated scene folders."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.datasets.annotated import SCENE_FILE, read_scene, write_annotated_scene
from distill3d.data.render.caster import render
from distill3d.data.render.place import place_cameras, place_scene
from distill3d.data.render.rooms import random_room, room_cameras
from distill3d.data.render.scene import Scene
from distill3d.errors import OutputError
from distill3d.files import PathLike
from distill3d.progress import ProgressBar

logger = logging.getLogger(__name__)

LICENCE = "CC0-1.0 (generated)"
# Raised whenever the same settings give other pictures, so that old folders are not taken for new ones.
_PLACE_VERSION = 3
_ROOMS_VERSION = 1
_ROOMS_PER_SEED = 1_000_003
_VIEWS_AT_ONCE = 20


def render_place(
    folder: PathLike,
    *,
    size: tuple[int, int] = (112, 112),
    num_train: int = 2000,
    num_test: int = 240,
    seed: int = 0,
    supersample: bool = False,
    overwrite: bool = False,
) -> Path:
    """Photograph the demo's apartment into one annotated scene folder, and return it.

    The apartment is always the same; `seed` draws the cameras. The frames are in time order: walks, then rounds of
    photos of one spot after another, first for training and then (others of both) held out with split "test".
    A folder that is already complete with these settings is left as it is.

    Raises:
        OutputError: the folder holds a scene with other settings, or cannot be written to.
    """
    folder = Path(folder)
    settings = {
        "generator": "distill3d place",
        "version": _PLACE_VERSION,
        "size": list(size),
        "num_train": num_train,
        "num_test": num_test,
        "seed": seed,
        "supersample": supersample,
    }
    if _is_complete(folder, settings, overwrite):
        return folder
    cameras = place_cameras(size, num_train=num_train, num_test=num_test, seed=seed)
    with ProgressBar("rendering the place", total=num_train + num_test, unit="views") as bar:
        _write_scene(
            folder,
            place_scene(),
            cameras.world_from_camera,
            cameras.intrinsics,
            size,
            cameras.splits,
            settings,
            supersample,
            bar.advance,
        )
    return folder


def render_rooms(
    folder: PathLike,
    *,
    count: int,
    views: int = 6,
    size: tuple[int, int] = (112, 112),
    seed: int = 0,
    split: str = "train",
    supersample: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Photograph `count` different rooms into one annotated scene folder each, and return these folders.

    Room `i` of a seed is the same however many are asked for, and no two seeds share a room. Rooms that are already
    complete with these settings are left as they are.

    Raises:
        OutputError: a folder holds a scene with other settings, or cannot be written to.
    """
    folders = []
    with ProgressBar("rendering rooms", total=count, unit="rooms") as bar:
        for number in range(count):
            target = Path(folder) / f"room_{number:06d}"
            folders.append(target)
            settings = {
                "generator": "distill3d rooms",
                "version": _ROOMS_VERSION,
                "size": list(size),
                "views": views,
                "seed": seed,
                "room": number,
                "split": split,
                "supersample": supersample,
            }
            if not _is_complete(target, settings, overwrite):
                room_seed = seed * _ROOMS_PER_SEED + number
                room = random_room(room_seed)
                world_from_camera, intrinsics = room_cameras(room, views, size, room_seed)
                _write_scene(
                    target, room.scene, world_from_camera, intrinsics, size, [split] * views, settings, supersample
                )
            bar.advance()
    return folders


def _is_complete(folder: Path, settings: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether the folder holds this very scene already."""
    if overwrite or not (folder / SCENE_FILE).is_file():
        return False
    found = read_scene(folder).get("info", {})
    if found == settings:
        logger.info("%s is complete already", folder)
        return True
    changed = sorted(key for key in set(found) | set(settings) if found.get(key) != settings.get(key))
    raise OutputError(
        f"{folder} holds a scene that was made with other settings ({', '.join(changed)} differ). "
        "Choose another folder, delete this one, or ask to overwrite it."
    )


def _write_scene(
    folder: Path,
    scene: Scene,
    world_from_camera: Float[Tensor, "views 4 4"],
    intrinsics: Float[Tensor, "views 3 3"],
    size: tuple[int, int],
    splits: list[str],
    settings: Mapping[str, Any],
    supersample: bool,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    images = torch.empty(len(intrinsics), 3, *size)
    depth = torch.empty(len(intrinsics), *size)
    for start in range(0, len(intrinsics), _VIEWS_AT_ONCE):
        part = slice(start, start + _VIEWS_AT_ONCE)
        views = render(scene, world_from_camera[None, part], intrinsics[None, part], size, supersample=supersample)
        assert views.depth is not None
        images[part], depth[part] = views.images[0], views.depth[0]
        advance(len(images[part]))
    write_annotated_scene(
        folder,
        images,
        depth=depth,
        intrinsics=intrinsics,
        world_from_camera=world_from_camera,
        split=splits,
        is_metric=True,
        licence=LICENCE,
        info=settings,
    )
