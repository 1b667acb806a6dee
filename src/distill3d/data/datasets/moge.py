"""The bundle that MoGe is evaluated on: NYUv2, KITTI, ETH3D, iBims-1, GSO, Sintel, DDAD, DIODE, Spring, HAMMER.

<set>/.index.txt                                one folder of a picture per line
<set>/<folder>/{image.jpg,depth.png,meta.json}  meta.json: intrinsics in units of width and height

Depth is logarithmic between the `near` and `far` that its PNG says; 0 is unknown and 65535 infinitely far (sky).
GSO, Spring and Sintel have lengths of no unit. GSO, Spring, HAMMER and DDAD are described in this form alone.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from distill3d.data.datasets import DatasetSpec, ScanOptions, counted
from distill3d.data.decode import photo_size
from distill3d.data.listing import as_matrix, each_frame, inside, photo_row, read_part, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.files import read_json
from distill3d.geometry.conventions import intrinsics_from_normalised

_INDEX = ".index.txt"
_WITHOUT_UNIT = {"gso", "spring", "sintel"}
_LICENCE = "that of each set in it"


def find(root: Path) -> Sequence[Path]:
    """The folders of sets; their lists are hidden files."""
    if (root / _INDEX).is_file():
        return [root]
    return sorted((listed.parent for listed in root.glob(f"*/{_INDEX}")), key=natural_key) if root.is_dir() else []


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """Each picture is a scene of its own, in the order of the list."""
    listed = read_part("list", part / _INDEX, lambda path: path.read_text(encoding="utf-8")).splitlines()
    prefix = part.resolve().name

    def row(name: str) -> ManifestRow:
        photo = required(part / name / "image.jpg", "picture")
        common: dict[str, Any] = {
            "scene": f"{prefix}/{name}",
            "frame": 0,
            "ordered": False,
            "split": "test",
            "licence": _LICENCE,
        }
        if options.mode == "images_only":
            return photo_row(photo, root, dataset="moge", **common)
        size = photo_size(photo, upright=False)
        meta = read_json(required(part / name / "meta.json", "camera"))
        normalised = torch.tensor(meta["intrinsics"], dtype=torch.float64)
        depth = inside(required(part / name / "depth.png", "depth map"), root)
        return photo_row(
            photo,
            root,
            dataset="moge",
            size=size,
            intrinsics=as_matrix(intrinsics_from_normalised(normalised, size)),
            depth=Ref(depth, "log-png"),
            sky=Ref(depth, codec("mask", above=65534)),
            scale="" if prefix.lower() in _WITHOUT_UNIT else "metric",
            **common,
        )

    names = [line.strip() for line in listed if line.strip()]
    return each_frame(names, row, lambda name: inside(part / name, root), on_skip)


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="the evaluation bundle of MoGe",
    role="evaluation",
    count=lambda parts: counted(len(parts), "set"),
    url="https://github.com/microsoft/MoGe",
    size="not verified",
    licence=_LICENCE,
    sharing="as each set in it says",
)
