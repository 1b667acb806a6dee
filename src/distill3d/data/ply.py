"""Points of a PLY file, as scanners and reference reconstructions come."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from distill3d.errors import DataError

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_LONGEST_HEADER = 1 << 16


def read_ply_points(path: Path) -> Float[np.ndarray, "points 3"]:
    """Read where the vertices of a PLY are, in the file's unit and axes; whatever else it holds is passed over.

    Raises:
        DataError: it is no PLY, has no vertices with x, y and z, or ends early.
    """
    with path.open("rb") as file:
        order, count, fields = _read_header(file, path)
        if order == "=":
            points = _read_text(file, count, fields)
        else:
            stored = np.fromfile(file, dtype=np.dtype([(name, order + kind) for name, kind in fields]), count=count)
            points = np.stack([stored[axis].astype(np.float64) for axis in "xyz"], axis=-1)
    if len(points) != count:
        raise DataError(f"{path} ends after {len(points)} of {count} vertices. Copy it again.")
    return points


def _read_text(file: BinaryIO, count: int, fields: list[tuple[str, str]]) -> Float[np.ndarray, "points 3"]:
    names = [name for name, _ in fields]
    columns = tuple(names.index(axis) for axis in "xyz")
    try:
        return np.loadtxt(file, usecols=columns, max_rows=count, ndmin=2) if count else np.zeros((0, 3))
    except (ValueError, IndexError) as error:
        raise DataError(f"{file.name} has a vertex that cannot be read ({error}). Copy it again.") from error


def _read_header(file: BinaryIO, path: Path) -> tuple[str, int, list[tuple[str, str]]]:
    """Byte order ("=" for text), number of vertices and their fields; the file stands behind the header then."""
    if file.readline(_LONGEST_HEADER).strip() != b"ply":
        raise DataError(f"{path} is not a PLY file.")
    order, elements, fields = "", 0, []
    count: int | None = None
    while (line := file.readline(_LONGEST_HEADER)) and file.tell() < _LONGEST_HEADER:
        words = line.decode("ascii", "replace").split()
        match words:
            case ["format", name, *_]:
                order = _ORDERS.get(name, "")
            case ["element", "vertex", number] if number.isdigit() and elements == 0:
                count, elements = int(number), 1
            case ["element", *_]:
                elements += 1
            case ["property", kind, name] if elements == 1 and count is not None and kind in _TYPES:
                fields.append((name, _TYPES[kind]))
            case ["end_header"] if order and count is not None and {"x", "y", "z"} <= {name for name, _ in fields}:
                return order, count, fields
            case ["end_header"]:
                break
    raise DataError(f"{path} does not begin with vertices that have x, y and z; its header is not understood.")
