"""Folders of photos: each folder that holds photos is a scene.

<scene>/*.jpg             or
<scene>/images/*.jpg      (or `rgb`, `color`, `frames`, `photos`: then nothing else of the scene is taken, so that
                           depth maps, masks and previews beside it are not mistaken for photos)
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from distill3d.data.decode import PHOTO_SUFFIXES, photo_size
from distill3d.data.rows import ManifestRow, OnSkip, Skipped, log_skip
from distill3d.data.walk import scene_name, visible_files
from distill3d.errors import DataError
from distill3d.files import PathLike

logger = logging.getLogger(__name__)

IMAGE_FOLDERS = ("images", "image", "rgb", "color", "colour", "frames", "photos")
"""Names of a subfolder that holds the photos of the scene above it."""


def is_photo(path: Path) -> bool:
    """Whether a file is called like a photo."""
    return path.suffix.lower() in PHOTO_SUFFIXES


def find_photos(root: PathLike) -> dict[Path, list[Path]]:
    """The photos of each scene at or below `root`, scenes and photos in natural order. A file is a scene of its own."""
    root = Path(root)
    if root.is_file():
        return {root.parent: [root]} if is_photo(root) else {}
    by_folder: dict[Path, list[Path]] = {}
    for path in visible_files(root):
        if is_photo(path):
            by_folder.setdefault(path.parent, []).append(path)
    chosen = _image_folders([folder for folder in by_folder if folder != root], root)
    scenes: dict[Path, list[Path]] = {}
    for folder, photos in by_folder.items():
        if chosen.get(folder.parent) == folder:
            scenes[folder.parent] = photos
        elif not chosen.keys() & {folder, *folder.parents}:
            scenes[folder] = photos
    unused = sum(map(len, by_folder.values())) - sum(map(len, scenes.values()))
    if unused:
        logger.info("%s: left %d pictures beside the folders of photos alone", root, unused)
    return scenes


def _image_folders(folders: list[Path], root: Path) -> dict[Path, Path]:
    """The scenes that keep their photos in a folder called so, each with that folder: the first in IMAGE_FOLDERS."""
    chosen: dict[Path, Path] = {}
    for name in IMAGE_FOLDERS:
        for folder in folders:
            if folder.name.lower() == name:
                chosen.setdefault(folder.parent, folder)
    # Beside whole scenes of that make, `images` right below the root is one more scene and not the only one.
    if len(chosen) > 1:
        chosen.pop(root, None)
    return chosen


def scan(root: PathLike, *, on_skip: OnSkip = log_skip) -> Iterator[ManifestRow]:
    """List every photo below `root` whose header can be read. Frames count in natural order of the names.

    The number of a frame does not change when another photo becomes unreadable.
    """
    root = Path(root)
    scenes = find_photos(root)
    base = root.parent if root.is_file() else root
    for folder, photos in scenes.items():
        name = scene_name(folder, base, alone=len(scenes) == 1)
        for frame, path in enumerate(photos):
            inside = path.relative_to(base).as_posix()
            try:
                height, width = photo_size(path)
            except DataError as error:
                on_skip(Skipped(inside, str(error)))
                continue
            yield ManifestRow(dataset="photos", scene=name, frame=frame, image=inside, width=width, height=height)
