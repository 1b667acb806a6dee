"""SA-1B: eleven million photos in a thousand tar shards, which are read in place.

sa_000000.tar                    pairs of sa_<id>.jpg and sa_<id>.json, ids in no order and with gaps

A pass over the headers of a shard finds where each photo lies; later a photo is one read of a range of bytes. There is
no camera and no depth: the teacher (MoGe) supplies them.
"""

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distill3d.data.datasets import DatasetSpec, ScanOptions, counted
from distill3d.data.decode import photo_size
from distill3d.data.fit import Size
from distill3d.data.listing import below, each_frame, inside
from distill3d.data.refs import Ref
from distill3d.data.rows import ManifestRow, OnSkip, Skipped
from distill3d.errors import DataError

_NAME = re.compile(r"(?:\./)?sa_(\d+)\.jpe?g")
_HEADER = 1 << 16
_LICENCE = "SA-1B Dataset Research License"


@dataclass(frozen=True)
class _Member:
    number: int
    offset: int
    length: int


def find(root: Path) -> Sequence[Path]:
    """The shards."""
    return [root] if root.is_file() and re.fullmatch(r"sa_\d{6}\.tar", root.name) else below(root, "sa_[0-9]*.tar")


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The photos of one shard in the order of their numbers; a shard that ends too soon gives those before the cut."""
    members: list[_Member] = []
    try:
        for member in _photos(part):
            members.append(member)
    except (tarfile.TarError, EOFError, OSError) as error:
        reason = f"{part} is cut short or damaged after {len(members)} photos ({error}). Download it again."
        on_skip(Skipped(inside(part, root), reason))

    def row(member: _Member) -> ManifestRow:
        image = Ref(inside(part, root), "image", member.offset, member.length)
        height, width = _size(image, root)
        return ManifestRow(
            dataset="sa1b",
            scene=part.stem,
            frame=member.number,
            image=image,
            width=width,
            height=height,
            ordered=False,
            licence=_LICENCE,
        )

    members.sort(key=lambda member: member.number)
    yield from each_frame(members, row, lambda member: f"{inside(part, root)}:sa_{member.number}.jpg", on_skip)


def _size(image: Ref, root: Path) -> Size:
    """(height, width), upright, from the first bytes of the photo alone where they suffice."""
    try:
        return photo_size(replace(image, length=min(_HEADER, image.length or _HEADER)).within(root), upright=True)
    except DataError:
        return photo_size(image.within(root), upright=True)


def _photos(shard: Path) -> Iterator[_Member]:
    size = shard.stat().st_size
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            named = _NAME.fullmatch(member.name)
            if member.offset_data + member.size > size:
                raise EOFError(f"{member.name} ends behind the end of the file")
            if named and member.isfile():
                yield _Member(int(named[1]), member.offset_data, member.size)


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="SA-1B",
    role="training",
    count=lambda parts: counted(len(parts), "shard"),
    modes=("images_only",),
    url="https://ai.meta.com/datasets/segment-anything-downloads/",
    size="11 TB: 1000 shards of 10 GB; 18 of them (180 GB) hold as many photos as Fin3R looks at",
    licence=_LICENCE,
    sharing="no photos; non-commercial research only; ask before publishing what a teacher made of them",
)
