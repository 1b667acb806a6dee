"""Finding files below a folder in natural order, and naming scenes after their folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from distill3d.data.rows import natural_key
from distill3d.files import PathLike


def visible_files(root: PathLike) -> Iterator[Path]:
    """Every file at or below `root` in natural order, a folder's own before those of its subfolders.

    Hidden files and folders are passed over (`.DS_Store`, and `._1.jpg` beside every `1.jpg` on some memory cards), and
    so is `__MACOSX`. Links to folders are followed, each folder is visited once.
    """
    visited: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted((name for name in subfolders if name[0] != "." and name != "__MACOSX"), key=natural_key)
        for name in sorted(names, key=natural_key):
            if name[0] != ".":
                yield Path(folder) / name


def scene_name(inside: Path, root: Path) -> str:
    """The path `inside` below `root`; the root itself goes by its own name, or "." where a folder in it has that name.

    The name of a scene does not depend on which others there are.
    """
    if inside != Path():
        return inside.as_posix()
    name = root.resolve().name
    return "." if not name or (root / name).is_dir() else name
