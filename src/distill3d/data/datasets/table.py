"""A table of frames that the user has written: CSV (with a header), JSON lines or Parquet, beside the pictures.

    image                           path of the picture, relative to the table; the only column that must be there
    scene, frame                    name and number; one scene and the order of the lines if absent
    timestamp, split, licence       seconds; train, val or test; free text
    scale                           metric, sfm or relative
    fx, fy, cx, cy                  in pixels as stored, (0, 0) being the centre of the top-left pixel
    world_from_camera               12 or 16 numbers row by row, OpenCV axes (in CSV separated by blanks)
    depth, depth_scale, depth_kind  `.npy`, 16-bit `.png`, `.pfm` or `.exr`; scene units per step; z or distance
    mask                            picture that is black where the frame must not be used

Give the file, or a folder that holds `frames.csv`, `frames.jsonl` or `frames.parquet`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from distill3d.data.datasets import DatasetSpec, ScanOptions, counted
from distill3d.data.listing import each_frame, inside, photo_row, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, Matrix, OnSkip, matrix
from distill3d.data.table import METADATA_KEY
from distill3d.data.walk import scene_name
from distill3d.errors import DataError

NAMES = ("frames.csv", "frames.jsonl", "frames.parquet")
_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet"})
_DEPTH_CODECS = {".npy": "npy", ".png": "png16", ".pfm": "pfm", ".exr": "exr"}
_NUMBERS = ("frame", "timestamp", "fx", "fy", "cx", "cy", "depth_scale")
_WORDS = ("image", "scene", "split", "licence", "scale", "depth", "depth_kind", "mask", "world_from_camera")
_ALLOWED = {"depth_kind": ("", "z", "distance"), "scale": ("", "metric", "sfm", "relative")}


def find(root: Path) -> Sequence[Path]:
    """The table itself, or the first of the usual names in a folder."""
    if root.is_file():
        return [root] if root.suffix.lower() in _SUFFIXES and not _is_manifest(root) else []
    return [root / name for name in NAMES if (root / name).is_file()][:1]


def _is_manifest(path: Path) -> bool:
    """A manifest is made from photos, and no list that another one is made from."""
    if path.suffix.lower() != ".parquet":
        return False
    try:
        return METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """One row for each line.

    Raises:
        DataError: the table is damaged, lacks the column `image` or has columns that nobody would read.
    """
    lines = _lines(part)
    name = scene_name(Path(), part.parent)
    yield from each_frame(
        enumerate(lines),
        lambda item: _row(item[1], item[0], part.parent, root, name, full=options.mode == "full"),
        lambda item: str(item[1].get("image") or f"line {item[0] + 1}"),
        on_skip,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix.lower() == ".csv":
            strings = pa.csv.ConvertOptions(column_types=dict.fromkeys((*_NUMBERS, *_WORDS), pa.string()))
            table = pa.csv.read_csv(path, convert_options=strings)
        elif path.suffix.lower() == ".jsonl":
            table = pa.json.read_json(path)
        else:
            table = pq.read_table(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table of frames: {error}. Write it again.") from error
    unknown = sorted(set(table.column_names) - {*_NUMBERS, *_WORDS})
    if unknown or "image" not in table.column_names:
        raise DataError(
            f"{path} has the columns {table.column_names}, expected `image` and any of "
            f"{', '.join(name for name in (*_NUMBERS, *_WORDS) if name != 'image')}. Rename or leave out {unknown}."
        )
    lines: list[dict[str, Any]] = table.to_pylist()
    return lines


def _row(line: Mapping[str, Any], number: int, folder: Path, root: Path, name: str, *, full: bool) -> ManifestRow:
    held = {key: value for key, value in line.items() if value is not None and value != ""}
    for key, allowed in _ALLOWED.items():
        if held.get(key, "") not in allowed:
            raise ValueError(f"{key} is {held[key]!r}, expected {' or '.join(allowed[1:])}")
    photo = required(folder / str(held["image"]), "picture")
    known: dict[str, Any] = {}
    if full:
        known["intrinsics"] = _intrinsics(held)
        known["world_from_camera"] = _pose(held.get("world_from_camera"))
        known["depth_kind"] = held.get("depth_kind", "z")
        if "depth" in held:
            path = required(folder / str(held["depth"]), "depth map")
            if path.suffix.lower() not in _DEPTH_CODECS:
                raise ValueError(f"the depth map {path.name} is none of {', '.join(_DEPTH_CODECS)}")
            scale = float(held.get("depth_scale", 1.0))
            known["depth"] = Ref(inside(path, root), codec(_DEPTH_CODECS[path.suffix.lower()], scale=scale))
    return photo_row(
        photo,
        root,
        dataset="table",
        scene=str(held.get("scene", name)),
        frame=int(held.get("frame", number)),
        timestamp=float(held["timestamp"]) if "timestamp" in held else None,
        mask=Ref(inside(folder / str(held["mask"]), root), "mask") if "mask" in held else None,
        split=str(held.get("split", "")),
        scale=held.get("scale", ""),
        licence=str(held.get("licence", "")),
        **known,
    )


def _intrinsics(held: Mapping[str, Any]) -> Matrix | None:
    given = [key for key in ("fx", "fy", "cx", "cy") if key in held]
    if not given:
        return None
    if len(given) < 4:
        raise ValueError(f"it has {', '.join(given)}, expected all of fx, fy, cx, cy")
    fx, fy, cx, cy = (float(held[key]) for key in ("fx", "fy", "cx", "cy"))
    return matrix([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], 3)


def _pose(value: Any) -> Matrix | None:
    if value is None:
        return None
    numbers = [float(number) for number in (value.split() if isinstance(value, str) else value)]
    if len(numbers) not in (12, 16):
        raise ValueError(f"world_from_camera has {len(numbers)} numbers, expected 12 or 16")
    return matrix([*(numbers[start : start + 4] for start in (0, 4, 8)), [0.0, 0.0, 0.0, 1.0]], 4)


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="a table of frames: CSV, JSON lines or Parquet",
    role="own",
    count=lambda parts: counted(len(parts), "table"),
)
