"""Folders of photos: each folder that holds photos is a scene.

<scene>/*.jpg             or
<scene>/images/*.jpg      (or `rgb`, `color`, `frames`, `photos`: then nothing else of the scene is taken, so that
                           depth maps, masks and previews beside it are not mistaken for photos)

Gray pictures that are called depth, disparity or mask, and `1_masked.jpg` beside `1.jpg`, are no photos.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from distill3d.data.datasets import DatasetSpec, ScanOptions, counted
from distill3d.data.decode import PHOTO_SUFFIXES, is_gray, photo_size, photo_time
from distill3d.data.refs import Ref
from distill3d.data.rows import ManifestRow, OnSkip, Skipped, natural_key
from distill3d.data.walk import scene_name, visible_files
from distill3d.errors import DataError

logger = logging.getLogger(__name__)

_MAPS = frozenset({"depth", "disparity", "mask"})

IMAGE_FOLDERS = ("images", "image", "rgb", "color", "colour", "frames", "photos")
"""Names of a subfolder that holds the photos of the scene above it."""


def is_photo(path: Path) -> bool:
    """Whether a file is called like a photo."""
    return path.suffix.lower() in PHOTO_SUFFIXES


def find(root: Path) -> Sequence[Path]:
    """The folders that hold the photos of one scene each, in natural order; or the photo itself, if `root` is one."""
    if root.is_file():
        return [root] if is_photo(root) else []
    by_folder: dict[Path, int] = {}
    for path in visible_files(root):
        if is_photo(path):
            by_folder[path.parent] = by_folder.get(path.parent, 0) + 1
    chosen = _image_folders([folder for folder in by_folder if folder != root], root)
    parts = [
        folder
        for folder in by_folder
        if chosen.get(folder.parent) == folder or not chosen.keys() & {folder, *folder.parents}
    ]
    unused = sum(by_folder.values()) - sum(by_folder[folder] for folder in parts)
    if unused:
        logger.info("%s: left %d pictures beside the folders of photos alone", root, unused)
    return parts


def list_photos(part: Path) -> list[Path]:
    """The photos of one part, in natural order of their names."""
    if part.is_file():
        return [part]
    return sorted((path for path in part.iterdir() if path.name[0] != "." and is_photo(path)), key=natural_key)


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """List the photos of one folder whose header can be read; the second of two equal files is left out.

    Frames count in natural order of the names (or by time, if that is asked for), and the number of a frame does not
    change when another photo becomes unreadable.
    """
    name = scene_name(_scene_folder(part, root).relative_to(root), root)
    seen: dict[tuple[int, bytes], str] = {}
    photos = list_photos(part)
    times = {path: photo_time(path) if options.by_time else None for path in photos}
    photos.sort(key=lambda path: (times[path] is None, times[path] or 0.0))
    names = {path.stem for path in photos}
    sizes = [path.stat().st_size if path.is_file() else 0 for path in photos]
    same_size = Counter(sizes)
    for frame, (path, size) in enumerate(zip(photos, sizes, strict=True)):
        inside = path.relative_to(root).as_posix()
        try:
            if what := why_no_photo(path, names):
                raise DataError(f"{path} {what}: it is no photo. A table of the scene can say what it is.")
            height, width = photo_size(path)
            if same_size[size] > 1:
                content = (size, hashlib.blake2b(path.read_bytes(), digest_size=16).digest())
                if twin := seen.get(content):
                    raise DataError(f"{path} holds the same bytes as {twin}; only the first is listed.")
                seen[content] = path.name
        except (DataError, OSError) as error:
            on_skip(Skipped(inside, str(error)))
            continue
        yield ManifestRow(
            dataset="photos",
            scene=name,
            frame=frame,
            image=Ref(inside),
            width=width,
            height=height,
            timestamp=times[path],
        )


def why_no_photo(path: Path, names: Set[str]) -> str | None:
    """What a picture is, if it stands beside photos of such names (without suffixes) and is none itself."""
    if path.stem.endswith("_masked") and path.stem.removesuffix("_masked") in names:
        return f"is {path.stem.removesuffix('_masked')} without its background"
    words = set(re.split(r"[^a-z]+", path.stem.lower())) & _MAPS
    return f"is called a {words.pop()} map and has no colours" if words and is_gray(path) else None


def _scene_folder(part: Path, root: Path) -> Path:
    """The folder that a scene is named after: the one above a folder called `images`."""
    if part.is_file():
        return part.parent
    if part == root or part.name.lower() not in IMAGE_FOLDERS:
        return part
    if part.parent == root and _beside_scenes(part, root):
        return part
    siblings = {folder.name.lower(): folder for folder in reversed(list(part.parent.iterdir()))}
    first = next((siblings[name] for name in IMAGE_FOLDERS if name in siblings), None)
    return part.parent if part == first else part


def _beside_scenes(part: Path, root: Path) -> bool:
    """Whether a folder right below the root stands beside whole scenes, `<scene>/images`: then it is one of them."""
    folders = (path.parent for path in visible_files(root) if is_photo(path))
    return any(
        folder.name.lower() in IMAGE_FOLDERS and folder.parent != root and part not in folder.parents
        for folder in folders
    )


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


def _count(parts: Sequence[Path]) -> str:
    return f"{counted(sum(len(list_photos(part)) for part in parts), 'photo')} of {counted(len(parts), 'scene')}"


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="a folder of photos, or a folder of such folders",
    role="own",
    general=2,
    count=_count,
    modes=("images_only",),
)
