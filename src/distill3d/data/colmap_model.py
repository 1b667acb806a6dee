"""COLMAP models, text and binary: cameras, images with their poses, points with their tracks.

The format is that of https://colmap.github.io/format.html. Pixel coordinates become ours here: COLMAP puts (0, 0) at
the image's corner, we at the centre of the top-left pixel.
"""

import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from distill3d.data.decode import UNREADABLE
from distill3d.data.rows import Distortion, Matrix, natural_key
from distill3d.data.walk import visible_files
from distill3d.errors import DataError
from distill3d.files import PathLike
from distill3d.geometry.lenses import LENSES

_ONE_FOCAL = frozenset(
    {
        *("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"),
        *("SIMPLE_DIVISION", "SIMPLE_FISHEYE"),
    }
)
_STRAIGHT = frozenset(
    {
        *("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"),
        *("SIMPLE_DIVISION", "DIVISION"),
    }
)
"""Models that are a pinhole where all distortion parameters are 0."""
_MODEL_NAMES = tuple(LENSES)
_MAX_CAMERA_SIDE = 1_000_000


@dataclass(frozen=True)
class ColmapCamera:
    """One camera: a lens and the size of its pictures."""

    id: int
    model: str
    width: int
    height: int
    params: tuple[float, ...]
    """Focal length (one or two), principal point (from the corner), distortion."""

    @property
    def intrinsics(self) -> Matrix:
        """3x3, integer pixel centres."""
        fx, fy, cx, cy = (self.params[0], *self.params)[:4] if self.model in _ONE_FOCAL else self.params[:4]
        return ((fx, 0.0, cx - 0.5), (0.0, fy, cy - 0.5), (0.0, 0.0, 1.0))

    @property
    def distortion(self) -> Distortion | None:
        """What its lens does; `None` for a pinhole."""
        params = self.params[3 if self.model in _ONE_FOCAL else 4 :]
        return Distortion(self.model, params) if any(params) or self.model not in _STRAIGHT else None


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """One registered image."""

    id: int
    name: str
    """Path below the folder of images."""
    camera_id: int
    world_from_camera: Float[np.ndarray, "4 4"]
    pixels: Float[np.ndarray, "observations 2"]
    """Where points were observed: (x, y), integer pixel centres, in the picture as stored (distorted)."""
    point_ids: Int[np.ndarray, " observations"]
    """The point that each observation belongs to, -1 for none."""


@dataclass(frozen=True, eq=False)
class ColmapPoints:
    """The sparse cloud, sorted by id."""

    ids: Int[np.ndarray, " points"]
    xyz: Float[np.ndarray, "points 3"]
    rgb: UInt8[np.ndarray, "points 3"]
    error: Float[np.ndarray, " points"]
    """Mean reprojection error in pixels."""
    track_lengths: Int[np.ndarray, " points"]
    """In how many images each was observed."""


def _no_points() -> ColmapPoints:
    zeros = functools.partial(np.zeros, dtype=np.float64)
    ids = np.zeros(0, dtype=np.int64)
    return ColmapPoints(ids, zeros((0, 3)), np.zeros((0, 3), np.uint8), zeros(0), ids.copy())


@dataclass(frozen=True)
class ColmapModel:
    """One reconstruction; its unit of length is arbitrary unless something else says otherwise."""

    cameras: dict[int, ColmapCamera]
    images: tuple[ColmapImage, ...]
    """In natural order of their names."""
    points: ColmapPoints = field(default_factory=_no_points)


def find_models(root: PathLike) -> list[Path]:
    """Folders at or below `root` that hold a model, in natural order; of `sparse/0`, `sparse/1`, ... each is one."""
    folders = {path.parent for path in visible_files(root) if path.name in ("cameras.bin", "cameras.txt")}
    return sorted((folder for folder in folders if _suffix(folder) is not None), key=natural_key)


def read_model(folder: PathLike, *, points: bool = True) -> ColmapModel:
    """Read the model in a folder, binary before text.

    Args:
        folder: holds cameras, images and (for `points`) points3D.
        points: read the cloud and the observations as well, which are most of the bytes.

    Raises:
        DataError: a file is missing or damaged, or a camera is of a model that is not known.
    """
    folder = Path(folder)
    suffix = _suffix(folder)
    if suffix is None:
        raise DataError(f"{folder} holds no COLMAP model: expected cameras and images, both .bin or both .txt.")
    read = _BINARY if suffix == "bin" else _TEXT
    cameras = _parsed(folder / f"cameras.{suffix}", read["cameras"])
    images = _parsed(folder / f"images.{suffix}", functools.partial(read["images"], observations=points))
    unknown = sorted({image.camera_id for image in images} - cameras.keys())
    if unknown:
        raise DataError(f"{folder}/images.{suffix} names the cameras {unknown[:5]}, which cameras.{suffix} lacks.")
    cloud = folder / f"points3D.{suffix}"
    held = _parsed(cloud, read["points"]) if points and cloud.is_file() else _no_points()
    return ColmapModel(cameras, tuple(sorted(images, key=lambda image: natural_key(image.name))), held)


def _suffix(folder: Path) -> str | None:
    for suffix in ("bin", "txt"):
        if all((folder / f"{name}.{suffix}").is_file() for name in ("cameras", "images")):
            return suffix
    return None


def _parsed(path: Path, parse: Callable[[Path], Any]) -> Any:
    try:
        return parse(path)
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as a part of a COLMAP model: {error}. Copy it again.") from error


def _camera(number: int, model: str, width: int, height: int, params: tuple[float, ...]) -> ColmapCamera:
    if model not in LENSES:
        raise DataError(f"Camera {number} is of the model {model}, expected one of {', '.join(LENSES)}.")
    expected = LENSES[model][0] + (3 if model in _ONE_FOCAL else 4)
    if len(params) != expected:
        raise ValueError(f"camera {number} of the model {model} has {len(params)} parameters, expected {expected}")
    if not (0 < width <= _MAX_CAMERA_SIDE and 0 < height <= _MAX_CAMERA_SIDE and np.isfinite(params).all()):
        raise ValueError(f"camera {number} is {width}x{height} with the parameters {params}")
    return ColmapCamera(number, model, width, height, params)


def _image(number: int, pose: tuple[float, ...], camera: int, name: str, observed: np.ndarray) -> ColmapImage:
    """`pose`: quaternion (w, x, y, z) and translation of camera_from_world; `observed`: rows of (x, y, point id)."""
    quaternion, translation = np.array(pose[:4]), np.array(pose[4:])
    length = np.linalg.norm(quaternion)
    if not (np.isfinite(pose).all() and length > 1e-9):
        raise ValueError(f"image {name} has the pose {pose}")
    w, x, y, z = quaternion / length
    camera_from_world = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = camera_from_world.T
    world_from_camera[:3, 3] = -camera_from_world.T @ translation
    return ColmapImage(number, name, camera, world_from_camera, observed[:, :2] - 0.5, observed[:, 2].astype(np.int64))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        yield from (line.rstrip("\n") for line in file if not line.startswith("#"))


def _text_cameras(path: Path) -> dict[int, ColmapCamera]:
    cameras = {}
    for line in filter(str.strip, _lines(path)):
        number, model, width, height, *params = line.split()
        cameras[int(number)] = _camera(int(number), model, int(width), int(height), tuple(map(float, params)))
    return cameras


def _text_images(path: Path, *, observations: bool) -> list[ColmapImage]:
    images, lines = [], _lines(path)
    for line in lines:
        if not line.strip():
            continue
        number, *pose, camera, name = line.split(maxsplit=9)
        observed = next(lines, "")  # an image without observations has an empty line
        values = np.array(observed.split() if observations else [], dtype=np.float64).reshape(-1, 3)
        images.append(_image(int(number), tuple(map(float, pose)), int(camera), name.strip(), values))
    return images


def _text_points(path: Path) -> ColmapPoints:
    rows = [line.split() for line in _lines(path) if line.strip()]
    if not rows:
        return _no_points()
    values = np.array([row[:8] for row in rows], dtype=np.float64)
    return _points(values[:, 0], values[:, 1:4], values[:, 4:7], values[:, 7], [(len(row) - 8) // 2 for row in rows])


def _points(ids: Any, xyz: Any, rgb: Any, error: Any, lengths: Any) -> ColmapPoints:
    ids = np.asarray(ids).astype(np.int64)
    order = np.argsort(ids, kind="stable")
    return ColmapPoints(
        ids[order],
        np.asarray(xyz, dtype=np.float64)[order],
        np.asarray(rgb).astype(np.uint8)[order],
        np.asarray(error, dtype=np.float64)[order],
        np.asarray(lengths, dtype=np.int64)[order],
    )


class _Bytes:
    """A cursor in a binary file that refuses to run over its end, whatever counts the file states."""

    def __init__(self, path: Path) -> None:
        self._data, self._at = path.read_bytes(), 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def count(self, smallest: int) -> int:
        """A number of records, each of at least `smallest` bytes."""
        (count,) = self.take("<Q")
        if count * smallest > len(self._data) - self._at:
            raise ValueError(f"it states {count} records at byte {self._at}, more than the file can hold")
        return int(count)

    def name(self) -> str:
        end = self._data.index(b"\0", self._at)
        name, self._at = self._data[self._at : end].decode("utf-8", "surrogateescape"), end + 1
        return name

    def array(self, dtype: Any, count: int) -> np.ndarray:
        found = np.frombuffer(self._data, dtype, count, self._at)
        self._at += found.nbytes
        return found

    def skip(self, size: int) -> None:
        self._at += size


def _binary_cameras(path: Path) -> dict[int, ColmapCamera]:
    data, cameras = _Bytes(path), {}
    for _ in range(data.count(24)):
        number, model, width, height = data.take("<IiQQ")
        if not 0 <= model < len(_MODEL_NAMES):
            raise DataError(
                f"{path} cannot be read: camera {number} is of the model number {model}, of {len(_MODEL_NAMES)} known."
            )
        name = _MODEL_NAMES[model]
        params = data.take(f"<{LENSES[name][0] + (3 if name in _ONE_FOCAL else 4)}d")
        cameras[number] = _camera(number, name, width, height, params)
    return cameras


def _binary_images(path: Path, *, observations: bool) -> list[ColmapImage]:
    data, images = _Bytes(path), []
    observation = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
    for _ in range(data.count(73)):
        number, *pose, camera = data.take("<I7dI")
        name, count = data.name(), data.count(observation.itemsize)
        held = data.array(observation, count if observations else 0)
        if not observations:
            data.skip(count * observation.itemsize)
        values = np.stack([held["x"], held["y"], held["point"].astype(np.float64)], axis=-1)
        images.append(_image(number, tuple(pose), camera, name, values))
    return images


def _binary_points(path: Path) -> ColmapPoints:
    data = _Bytes(path)
    ids, xyz, rgb, error, lengths = [], [], [], [], []
    for _ in range(data.count(51)):
        number, *values = data.take("<Q3d3Bd")
        length = data.count(8)
        data.skip(8 * length)
        ids.append(number)
        xyz.append(values[:3])
        rgb.append(values[3:6])
        error.append(values[6])
        lengths.append(length)
    return _points(ids, xyz, rgb, error, lengths) if ids else _no_points()


_TEXT: dict[str, Callable[..., Any]] = {"cameras": _text_cameras, "images": _text_images, "points": _text_points}
_BINARY: dict[str, Callable[..., Any]] = {
    "cameras": _binary_cameras,
    "images": _binary_images,
    "points": _binary_points,
}
