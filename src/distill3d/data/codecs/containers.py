"""Depth as an array of a general container: NumPy, HDF5 (and MATLAB v7.3, which is the same), OpenEXR."""

import importlib
import io
import os
import threading
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from distill3d.data.codecs import MAX_PIXELS, checked_size, known_depth
from distill3d.data.refs import Span
from distill3d.errors import DataError

Depth = Float[np.ndarray, "height width"]

_ONE_AT_A_TIME = threading.Lock()
"""NumPy reads the header of an array as Python source, and Python 3.11 may lose count of how deep it is in one when
threads take turns (SystemError: AST constructor recursion depth mismatch)."""


def npy(span: Span, *, scale: float = 1.0, far: float = 0.0) -> Depth:
    """A `.npy` file, [height width] or with axes of length one around it.

    Args:
        span: the file.
        scale: scene units per stored unit.
        far: stored values from here on are sky, hence unknown; 0 keeps everything.
    """
    with span.open() as file:
        stored = _npy(file)
    return known_depth(np.where(stored >= far, 0, stored) if far else stored, scale)


def npz(span: Span, *, key: str, scale: float = 1.0) -> Depth:
    """One array of an `.npz` file."""
    with span.open() as file, zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as member:
        return known_depth(_npy(member), scale)


def hdf5(
    span: Span, *, key: str, index: int | None = None, axes: Literal["hw", "wh"] = "hw", scale: float = 1.0
) -> Depth:
    """One data set of an HDF5 file; a file with a negative value is no depth map (MegaDepth's ordinal maps).

    Args:
        span: the file.
        key: path of the data set.
        index: of the map, where the first axis counts maps.
        axes: "wh" where MATLAB has turned them around.
        scale: scene units per stored unit.
    """
    stored = read_hdf5(span, key, index)
    if stored.ndim == 2 and stored.dtype.kind == "f" and np.nanmin(stored, initial=0) < 0:
        raise ValueError("it has negative values: it is an ordinal map, not depth")
    return known_depth(stored.T if axes == "wh" else stored, scale)


def read_hdf5(span: Span, key: str, index: int | None = None) -> np.ndarray:
    """A data set of an HDF5 file as it is stored, or entry `index` of it.

    Raises:
        DataError: h5py is not installed.
        KeyError: there is no such data set.
    """
    with span.open() as file, open_hdf5(file) as archive:
        found = archive[key]
        shape = found.shape if index is None else found.shape[1:]
        if not 2 <= len(shape) <= 3 or np.prod(shape) > 4 * MAX_PIXELS:
            raise ValueError(f"{key} has shape {found.shape}, expected a picture or a map")
        return np.asarray(found[...] if index is None else found[index])


def exr(span: Span, *, scale: float = 1.0) -> Depth:
    """The one channel of an OpenEXR file (Habitat: `Y`, half floats), or the first where there are three alike."""
    os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"  # OpenCV leaves it off for fear of hostile files
    import cv2

    data = span.read()
    if data[:4] != b"\x76\x2f\x31\x01":
        raise ValueError("it does not start as an OpenEXR file does")
    try:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot decode it ({error})") from error
    if stored is None:
        raise ValueError("OpenCV cannot decode it")
    return known_depth(stored if stored.ndim == 2 else stored[..., -1], scale)


def _npy(file: Any) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    with _ONE_AT_A_TIME:
        shape, fortran, dtype = read_header(file)
    if dtype.kind not in "fuib":
        raise ValueError(f"it holds {dtype}, expected numbers")
    large = [length for length in shape if length != 1]
    if len(large) > 2:
        raise ValueError(f"it has shape {shape}, expected one map of [height, width]")
    height, width = (shape[0], shape[1]) if len(shape) == 2 else ((*large, 1, 1)[:2])
    checked_size(height, width)
    data = file.read(height * width * dtype.itemsize)
    stored = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return stored.reshape(height, width) if len(shape) != 2 else stored


def open_hdf5(file: io.BufferedReader | io.BytesIO | Path) -> Any:
    """An HDF5 file, to be used in a `with`.

    Raises:
        DataError: h5py is not installed.
        OSError: it is no HDF5 file.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise DataError("Reading HDF5 needs the package h5py: pip install 'distill3d[datasets]'.") from error
    return h5py.File(file, "r")


DEPTH_CODECS = {"npy": npy, "npz": npz, "hdf5": hdf5, "exr": exr}
