"""Several manifests as one, e.g. for one cache of all."""

import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from distill3d.data.columns import REFS
from distill3d.data.table import Manifest
from distill3d.errors import DataError


def join_manifests(manifests: Mapping[str, Manifest]) -> Manifest:
    """One manifest of several: scene "kitchen" of the one called "flat" becomes "flat/kitchen".

    The names of scenes do not depend on which other manifests there are. A single manifest stays as it is.

    Raises:
        DataError: there is none, or their media lie on different drives.
    """
    if len(manifests) < 2:
        if not manifests:
            raise DataError("There is no manifest. Make one with: distill3d manifest build PHOTOS --out FILE")
        return next(iter(manifests.values()))
    roots = [manifest.root.resolve() for manifest in manifests.values()]
    try:
        common = Path(os.path.commonpath(roots))
    except ValueError as error:
        raise DataError(f"The media of {', '.join(manifests)} have no folder in common: {error}.") from error
    return Manifest.from_tables(
        [
            _moved(manifest.table, name, root.relative_to(common))
            for (name, manifest), root in zip(manifests.items(), roots, strict=True)
        ],
        common,
    )


def _moved(table: pa.Table, name: str, folder: Path) -> pa.Table:
    """The same frames, with scenes named below `name` and paths that start above `folder`."""
    for column in ("scene", *REFS):
        before = name if column == "scene" else folder.as_posix()
        if column not in table.column_names or before == ".":
            continue
        kind = table.schema.field(column).type
        moved = pc.binary_join_element_wise(before, table[column].cast(pa.string()), "/")
        moved = pa.chunked_array([chunk.dictionary_encode() for chunk in moved.chunks]) if column == "scene" else moved
        table = table.set_column(table.column_names.index(column), column, moved.cast(kind))
    return table
