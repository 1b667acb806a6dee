"""Writing files so that a reader never sees half of one, and saying in words why a place cannot be written to."""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from distill3d.errors import OutputError

PathLike = str | Path
"""What a function takes where it wants the name of a file or folder."""

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.EFBIG: "the file is too large for this file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "no file or folder can be made there",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.EISDIR: "this is a folder, not a file",
    errno.ENAMETOOLONG: "the name is too long",
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def output_errors(path: PathLike, needed: int | None = None) -> Iterator[None]:
    """Turn the operating system's refusal to write at `path` into an `OutputError` that says what to do.

    Args:
        path: what is being written; errors about another file pass through.
        needed: bytes about to be written, where known.

    Raises:
        OutputError: no space, no permission, read-only, or the path runs through a file.
    """
    path = Path(path)
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS or not _concerns(error, path):
            raise
        raise OutputError(_explain(error, path, needed)) from error


@contextlib.contextmanager
def atomic_writer(path: PathLike, mode: str = "wb", *, needed: int | None = None) -> Iterator[IO[Any]]:
    """Open a file that takes its name only when the block ends well; otherwise nothing changes and nothing is left.

    Folders above it are made. The data and the name are flushed to the disk, so the file survives a power cut.

    Args:
        path: the final name; a file already there is replaced in one step.
        mode: "wb" or "w" (UTF-8).
        needed: bytes about to be written, where known, for the words of the error.

    Raises:
        OutputError: as for `output_errors`.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"atomic_writer writes whole files: mode must be 'wb' or 'w', not {mode!r}")
    path = Path(path)
    # The name is cut so that the temporary one is legal wherever the final one is.
    temporary = path.parent / f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    with output_errors(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:  # Ctrl-C as well: never leave a temporary file behind
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def atomic_write_bytes(path: PathLike, data: bytes | bytearray | memoryview) -> None:
    """Write a whole file in one step; see `atomic_writer`.

    Raises:
        OutputError: as for `output_errors`.
    """
    with atomic_writer(path, needed=len(data)) as file:
        file.write(data)


def write_json(path: PathLike, obj: Any) -> None:
    """Write JSON in one step, with sorted keys so that equal content gives equal bytes.

    Raises:
        OutputError: as for `output_errors`.
    """
    # Encoded first: a value that JSON cannot hold must not touch the file that is there.
    atomic_write_bytes(path, (json.dumps(obj, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: PathLike) -> Any:
    """Read what `write_json` wrote (or any JSON in UTF-8).

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON; the message names the file.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ValueErrors
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def ensure_output_dir(path: PathLike, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Make the folder a command writes to, and find out now rather than in an hour that it cannot.

    Args:
        path: the folder.
        overwrite: a folder with something in it is welcome. Nothing is deleted: files of the same name are replaced.
        resume: as `overwrite`, for a command that goes on where it stopped.

    Returns:
        The folder, which exists and takes files.

    Raises:
        OutputError: it holds something already, is a file, or cannot be written to.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file, expected a folder to write to. Choose another --out.")
    with output_errors(path):
        if path.is_dir() and not (overwrite or resume):
            held = sorted(child.name for child in path.iterdir())
            if held:
                listed = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "")
                raise OutputError(
                    f"{path} already holds {len(held)} files or folders ({listed}), expected an empty or new folder. "
                    "Choose another --out, or say --resume or --overwrite where the command offers it."
                )
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        probe.touch()
        probe.unlink()
    return path


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is about writing `path`: a failing write names no file, others name it or a folder above."""
    if error.filename is None:
        return True
    named = Path(os.path.abspath(os.fsdecode(error.filename)))  # noqa: PTH100 (resolve would follow links)
    target = Path(os.path.abspath(path))  # noqa: PTH100
    return named == target or named in target.parents or target in named.parents or named.parent == target.parent


def _explain(error: OSError, path: Path, needed: int | None) -> str:
    reason = _REASONS[error.errno or 0]
    if error.errno not in _FULL:
        return f"Cannot write {path}: {reason}. Choose another place for the output."
    wanted = "" if needed is None else f"about {megabytes(needed)} needed, "
    return (
        f"Cannot write {path}: {reason} ({wanted}{megabytes(_free_bytes(path))} free). "
        "Free some space or choose another --out."
    )


def megabytes(count: int) -> str:
    """A number of bytes in words, to three digits: "0.0123 MB", "5.2e+03 MB" never: "5200 MB"."""
    value = count / 1e6
    return f"{value:.0f} MB" if value >= 100 else f"{value:.3g} MB"


def _free_bytes(path: Path) -> int:
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries; file systems that cannot do so are left alone."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
