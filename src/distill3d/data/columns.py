"""Rows of a manifest as columns of an Arrow table, and back.

A `Ref` becomes the columns `<name>` (its path), `<name>_codec`, `<name>_offset`, `<name>_length` and `<name>_store`;
`intrinsics` the five numbers (fx, skew, cx, fy, cy), `world_from_camera` the upper twelve. What repeats is
dictionary-encoded, and a column that would hold nothing is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from distill3d.data.refs import Ref
from distill3d.data.rows import Distortion, ManifestRow, Matrix

_WORD = pa.dictionary(pa.int32(), pa.string())
REFS = ("image", "depth", "depth_mask", "sky", "mask")
"""The columns that hold paths."""
_DEFAULTS = {"offset": 0, "store": "file"}
_PLAIN: dict[str, pa.DataType] = {
    "dataset": _WORD,
    "scene": _WORD,
    "frame": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "timestamp": pa.float64(),
    "ordered": pa.bool_(),
    "depth_kind": _WORD,
    "split": _WORD,
    "scale": _WORD,
    "licence": _WORD,
}
_REF_TYPES = {"": pa.string(), "_codec": _WORD, "_offset": pa.int64(), "_length": pa.int64(), "_store": _WORD}
SCHEMA = pa.schema(
    [
        *_PLAIN.items(),
        ("intrinsics", pa.list_(pa.float64())),
        ("distortion_model", _WORD),
        ("distortion", pa.list_(pa.float64())),
        ("world_from_camera", pa.list_(pa.float64())),
        *((f"{ref}{part}", kind) for ref in REFS for part, kind in _REF_TYPES.items()),
    ]
)
REQUIRED = (
    "dataset",
    "scene",
    "frame",
    "width",
    "height",
    "ordered",
    "split",
    "scale",
    "licence",
    "image",
    "image_codec",
)
"""Columns that every manifest has, even one without rows."""


def to_table(rows: Iterable[ManifestRow]) -> pa.Table:
    """Rows as a table, in the given order, with every column of `SCHEMA`."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for row in rows:
        record = _to_record(row)
        for name, values in columns.items():
            values.append(record[name])
    return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names})


def without_empty(table: pa.Table) -> pa.Table:
    """Leave out the columns that hold nothing."""
    kept = [name for name in table.column_names if name in REQUIRED or table[name].null_count < len(table)]
    return table.select(kept)


def in_order(table: pa.Table, order: np.ndarray) -> pa.Table:
    """Rows in another order, in one piece, with dictionaries that hold only what occurs, in order of appearance."""
    taken = table.take(pa.array(order)).combine_chunks()
    return pa.table(
        {
            name: column.cast(pa.string()).dictionary_encode().combine_chunks() if column.type == _WORD else column
            for name, column in zip(taken.column_names, taken.columns, strict=True)
        }
    )


def to_rows(records: Sequence[Mapping[str, Any]]) -> list[ManifestRow]:
    """What `pa.RecordBatch.to_pylist` gives, as rows; absent columns hold nothing."""
    return [_to_row(record) for record in records]


def _to_record(row: ManifestRow) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(row, name) for name in _PLAIN}
    record["depth_kind"] = None if row.depth_kind == "z" else row.depth_kind
    k, pose = row.intrinsics, row.world_from_camera
    record["intrinsics"] = None if k is None else [k[0][0], k[0][1], k[0][2], k[1][1], k[1][2]]
    record["world_from_camera"] = None if pose is None else [value for line in pose[:3] for value in line]
    record["distortion_model"] = row.distortion and row.distortion.model
    record["distortion"] = None if row.distortion is None else list(row.distortion.params)
    for name in REFS:
        ref: Ref | None = getattr(row, name)
        record[name] = ref and ref.path
        for part in ("codec", "offset", "length", "store"):
            value = None if ref is None else getattr(ref, part)
            record[f"{name}_{part}"] = None if value == _DEFAULTS.get(part) else value
    return record


def _to_row(record: Mapping[str, Any]) -> ManifestRow:
    known: dict[str, Any] = {name: record.get(name) for name in _PLAIN}
    known["depth_kind"] = known["depth_kind"] or "z"
    model, params = record.get("distortion_model"), record.get("distortion")
    for name in REFS:
        known[name] = None if (path := record.get(name)) is None else _ref(record, name, path)
    return ManifestRow(
        **known,
        intrinsics=_intrinsics(record.get("intrinsics")),
        distortion=None if model is None else Distortion(model, tuple(params or ())),
        world_from_camera=_pose(record.get("world_from_camera")),
    )


def _ref(record: Mapping[str, Any], name: str, path: str) -> Ref:
    offset, store = record.get(f"{name}_offset"), record.get(f"{name}_store")
    return Ref(path, record[f"{name}_codec"], offset or 0, record.get(f"{name}_length"), store or "file")


def _intrinsics(values: Sequence[float] | None) -> Matrix | None:
    if values is None:
        return None
    fx, skew, cx, fy, cy = values
    return ((fx, skew, cx), (0.0, fy, cy), (0.0, 0.0, 1.0))


def _pose(values: Sequence[float] | None) -> Matrix | None:
    if values is None:
        return None
    return (*(tuple(values[start : start + 4]) for start in (0, 4, 8)), (0.0, 0.0, 0.0, 1.0))
