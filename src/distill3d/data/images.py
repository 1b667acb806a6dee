"""Laying a set of photos out on one canvas."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from distill3d.data.decode import photo_size, read_photo, to_unit_range
from distill3d.data.decode import read_image as read_image
from distill3d.data.fit import ImageFit as ImageFit
from distill3d.data.fit import Size
from distill3d.data.fit import canvas_size as canvas_size
from distill3d.data.placement import Placement as Placement
from distill3d.data.placement import find_placement
from distill3d.data.placement import place_depth as place_depth
from distill3d.data.placement import place_image as place_image
from distill3d.data.rows import Skipped
from distill3d.errors import DataError
from distill3d.files import PathLike
from distill3d.progress import track
from distill3d.types import Views


@dataclass(frozen=True)
class LoadedViews:
    """Photos on one canvas, and what became of each file."""

    views: Views
    """Batch of 1, with `images` and `valid`."""
    names: tuple[str, ...]
    """One per view, all different."""
    placements: tuple[Placement, ...]
    """One per view; `placements[i].to_source(K)` gives the camera of the original photo."""
    skipped: tuple[Skipped, ...] = ()


def load_views(
    paths: Sequence[PathLike],
    fit: ImageFit,
    canvas: Size | None = None,
    *,
    at_least: int = 2,
    upright: bool = True,
) -> LoadedViews:
    """Read photos onto one canvas, in the given order. A file that cannot be read is left out and listed.

    Args:
        paths: photos; the same one may come twice.
        fit: how they are laid out.
        canvas: (height, width); found from the photos if `None`.
        at_least: how many readable photos the caller needs.
        upright: turn photos as their EXIF orientation says; not where cameras speak of stored pixels.

    Raises:
        DataError: too few photos are left; the message lists what was found and why it could not be used.
    """
    at_least = max(at_least, 1)
    files = [Path(path) for path in paths]
    sizes: dict[int, Size] = {}
    decoded: dict[int, UInt8[np.ndarray, "height width 3"]] = {}
    failures: dict[int, str] = {}
    for index, path in enumerate(files):
        try:
            sizes[index] = photo_size(path, upright=upright)
        except DataError as error:
            failures[index] = str(error)
    placements: dict[int, Placement] = {}
    while sizes:
        shared = canvas or canvas_size(list(sizes.values()), fit)
        placements = {index: find_placement(size, fit, shared) for index, size in sizes.items()}
        for index, placement in track(placements.items(), "reading photos", len(placements), unit="photos"):
            if index in decoded and decoded[index].shape[:2] == placement.resized:
                continue
            try:
                decoded[index] = read_photo(files[index], placement.resized, upright=upright)
            except DataError as error:
                failures[index] = str(error)
                del sizes[index]
        if len(sizes) == len(placements):
            break  # otherwise a photo with a sound header was broken, and the canvas must not depend on it
    skipped = tuple(Skipped(str(files[index]), failures[index]) for index in sorted(failures))
    if len(sizes) < at_least:
        raise DataError(too_few(len(sizes), len(files), at_least, skipped))
    kept = [placements[index] for index in sizes]
    images = [to_unit_range(place_image(decoded[index], placements[index])) for index in sizes]
    views = Views(images=torch.stack(images)[None], valid=torch.stack([place.valid() for place in kept])[None])
    return LoadedViews(views, unique_names([files[index] for index in sizes]), tuple(kept), skipped)


def unique_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """A different short name for each file: its own, with its folder or a number in front where that is not enough."""
    folders: dict[str, set[Path]] = {}
    for path in paths:
        folders.setdefault(path.name, set()).add(path.parent)
    taken: set[str] = set()
    names = []
    for path in paths:
        short = path.name if len(folders[path.name]) == 1 else f"{path.parent.name}_{path.name}"
        name, number = short, 2
        while name in taken:
            name, number = f"{number}_{short}", number + 1
        taken.add(name)
        names.append(name)
    return tuple(names)


def too_few(usable: int, found: int, at_least: int, skipped: Sequence[Skipped]) -> str:
    """Why so few photos are too few, in words."""
    if found == 0:
        return f"There are no photos, expected at least {at_least}. Give a folder of photos or a video."
    counted = "1 photo" if usable == 1 else f"{usable} photos"
    message = f"Only {counted} of {found} can be used, expected at least {at_least}. "
    if found == usable:
        message = f"Found only {counted}, expected at least {at_least}. Take more photos of the place, with overlap. "
    reasons = "".join(f"\n  {entry.reason}" for entry in skipped[:5])
    return (message + (f"What was left out:{reasons}" if reasons else "")).strip()
