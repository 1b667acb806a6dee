"""Matterport3D photographs: what the reference code of Distill3R calls Habitat.

<building>/matterport_color_images/<standing point>_i<camera 0-2>_<direction 0-5>.jpg

Eighteen photos from each standing point, which share a centre: no depth can be learnt from their parallax. Nothing but
the photos is read.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.listing import below, each_frame, inside, photo_row
from distill3d.data.rows import ManifestRow, OnSkip, natural_key

_NAME = re.compile(r"(.+)_i(\d)_(\d)")
_LICENCE = "Matterport3D terms of use"


def find(root: Path) -> Sequence[Path]:
    """The folders of photos."""
    return below(root, "*/matterport_color_images")


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The photos of one building: standing points by name, then cameras and directions by number."""

    def row(item: tuple[int, Path]) -> ManifestRow:
        frame, photo = item
        common: dict[str, Any] = {"scene": inside(part.parent, root), "ordered": False, "licence": _LICENCE}
        return photo_row(photo, root, dataset="matterport", frame=frame, **common)

    photos = enumerate(sorted(part.glob("*.jpg"), key=_place))
    return each_frame(photos, row, lambda item: inside(item[1], root), on_skip)


def _place(photo: Path) -> tuple[str, int, int, object]:
    parts = _NAME.fullmatch(photo.stem)
    if parts is None:
        return (photo.stem, 0, 0, natural_key(photo.name))
    return (parts[1], int(parts[2]), int(parts[3]), ())


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="Matterport3D photographs",
    role="training",
    modes=("images_only",),
    url="https://niessner.github.io/Matterport/",
    size="not verified",
    licence=_LICENCE,
    sharing="no redistribution of photos, depth or caches",
)
