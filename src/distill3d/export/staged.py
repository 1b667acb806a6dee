"""A folder of results that appears whole: written aside first, then moved in, with the description last."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from distill3d.errors import OutputError
from distill3d.files import PathLike, ensure_output_dir, output_errors

UNFINISHED = ".unfinished"
"""Where files lie until all of them are written; a later call clears what a crash has left."""
LAST = "info.json"
"""Moved in after everything else: where it stands, the rest is complete."""


def claim_output(folder: PathLike, *, owned: tuple[str, ...], overwrite: bool) -> Path:
    """Make sure, before any work is done, that `folder` will take results.

    Args:
        folder: new, empty, or left by a run that was stopped; with `overwrite` it may hold older results.
        owned: names of the files and folders that a run writes; `overwrite` replaces these and nothing else.
        overwrite: replace older results.

    Raises:
        OutputError: it holds something else, older results without `overwrite`, or cannot be written to.
    """
    folder = Path(folder)
    with output_errors(folder):
        if (folder / UNFINISHED).is_dir():
            shutil.rmtree(folder / UNFINISHED)
        if folder.is_dir() and (held := sorted(child.name for child in folder.iterdir())):
            if foreign := [name for name in held if name not in owned]:
                raise OutputError(
                    f"{folder} holds files that are not results of this command ({', '.join(foreign[:3])}"
                    f"{', ...' if len(foreign) > 3 else ''}), expected a new or empty folder. Choose another --out."
                )
            if not overwrite:
                raise OutputError(
                    f"{folder} already holds results ({', '.join(held[:3])}{', ...' if len(held) > 3 else ''}). "
                    "Choose another --out, or replace them with --overwrite."
                )
    return ensure_output_dir(folder, overwrite=True)


@contextlib.contextmanager
def staged_output(folder: Path, *, owned: tuple[str, ...]) -> Iterator[Path]:
    """Give a folder to write to; what is in it moves to `folder` when the block ends well, and is dropped otherwise.

    Raises:
        OutputError: no room, or no permission.
    """
    stage = folder / UNFINISHED
    with output_errors(folder):
        try:
            stage.mkdir(parents=True, exist_ok=True)
            yield stage
            # Older results go first, all of them: a depth map of an earlier run must not stand among the new ones.
            for name in owned:
                _remove(folder / name)
            for child in sorted(stage.iterdir(), key=lambda path: path.name == LAST):
                child.replace(folder / child.name)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
