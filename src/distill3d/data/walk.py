"""Finding files below a folder in natural order, and naming scenes after their folders."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from distill3d.data.rows import natural_key
from distill3d.files import PathLike

_MOST_REMEMBERED = 2_000_000
"""Files of a tree that are kept in memory while it is asked what it is: about 200 MB."""

_NOT_THE_USERS = ("__MACOSX", "@eaDir")

_Folder = tuple[str, list[str]]
_walked: ContextVar[dict[str, list[_Folder]] | None] = ContextVar("walked", default=None)


def visible_files(root: PathLike) -> Iterator[Path]:
    """Every file at or below `root` in natural order, a folder's own before those of its subfolders.

    Hidden files and folders are passed over (`.DS_Store`, and `._1.jpg` beside every `1.jpg` on some memory cards), and
    so are folders that systems make (`__MACOSX`, `@eaDir`). Links to folders are followed, each folder is visited once.
    """
    for folder, names in _folders(os.fspath(root)):
        if names:
            path = Path(folder)
            yield from (path / name for name in names)


@contextmanager
def walked_once() -> Iterator[None]:
    """Within, a tree of up to two million files is walked through once, however often its files are asked for."""
    token = _walked.set({})
    try:
        yield
    finally:
        _walked.reset(token)


def _folders(root: str) -> Iterator[_Folder]:
    remembered = _walked.get()
    if remembered is not None and root in remembered:
        yield from remembered[root]
        return
    seen: list[_Folder] = []
    count = 0
    for folder in _walk(root):
        count += len(folder[1]) + 1
        if remembered is not None and count <= _MOST_REMEMBERED:
            seen.append(folder)
        yield folder
    if remembered is not None and count <= _MOST_REMEMBERED:
        remembered[root] = seen


def _walk(root: str) -> Iterator[_Folder]:
    """Each visible folder with the names of its visible files, those in natural order."""
    visited: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            state = Path(folder).stat()
            if (state.st_dev, state.st_ino) in visited:
                continue
            visited.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as entries:
                is_folder = {entry.name: entry.is_dir() for entry in entries}
        except OSError:  # it is no folder, gone, or may not be looked into
            continue
        yield folder, _in_order(name for name, inner in is_folder.items() if not inner)
        inner = _in_order(name for name, inner in is_folder.items() if inner and name not in _NOT_THE_USERS)
        waiting += [os.path.join(folder, name) for name in reversed(inner)]  # noqa: PTH118 (a Path takes five times as long)


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted((name for name in names if name[0] != "."), key=natural_key)


def scene_name(inside: Path, root: Path) -> str:
    """The path `inside` below `root`; the root itself goes by its own name, or "." where a folder in it has that name.

    The name of a scene does not depend on which others there are.
    """
    if inside != Path():
        return inside.as_posix()
    name = root.resolve().name
    return "." if not name or (root / name).is_dir() else name
