"""A zip or tar of photos, read in place: each folder in it that holds photos is a scene.

Members of a tar and of a zip lie in one piece, as they are or deflated. Videos in an archive, members that are
encrypted or packed in other ways, and compressed tars have to be unpacked first.
"""

import struct
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from distill3d.data.datasets import DatasetSpec, ScanOptions, counted
from distill3d.data.datasets.photos import IMAGE_FOLDERS, is_photo
from distill3d.data.datasets.video import is_video
from distill3d.data.decode import UNREADABLE, photo_size
from distill3d.data.listing import each_frame, inside
from distill3d.data.refs import Ref, Store
from distill3d.data.rows import ManifestRow, OnSkip, Skipped, natural_key
from distill3d.errors import DataError

_LOCAL_HEADER = 30
_ENCRYPTED = 1
_BROKEN = (*UNREADABLE, zipfile.BadZipFile, tarfile.TarError)
"""What damaged archives make their readers raise."""
_STORES: dict[int, Store] = {zipfile.ZIP_STORED: "file", zipfile.ZIP_DEFLATED: "deflate"}


class _Member(NamedTuple):
    name: PurePosixPath
    offset: int
    length: int
    store: Store | None
    """None where it is packed in a way that is not read."""


def find(root: Path) -> Sequence[Path]:
    """The archive itself, if there are photos in it."""
    if not root.is_file() or root.suffix.lower() not in (".zip", ".tar"):
        return []
    try:
        return [root] if any(is_photo(Path(member.name)) for member in _members(root)) else []
    except _BROKEN:
        return []


def why_nothing(path: Path) -> str | None:
    """Why `find` sees no photos in a file that is called like an archive; None for other files."""
    if path.suffix.lower() not in (".zip", ".tar"):
        return None
    try:
        count = sum(1 for _ in _members(path))
    except _BROKEN as error:
        return f"{path} is cut short, damaged or no archive ({error}). Copy it again."
    return f"{path} holds no photos, only {counted(count, 'other file')}. Unpack it if it holds videos or archives."


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The photos of an archive, scene by scene, in natural order of their names."""
    path = inside(part, root)
    scenes: dict[str, list[_Member]] = defaultdict(list)
    try:
        for member in _members(part):
            if is_photo(Path(member.name)):
                scenes[_scene(member.name, part)].append(member)
            elif is_video(Path(member.name)):
                on_skip(Skipped(f"{path}:{member.name}", f"{member.name} is a video in an archive. Unpack it."))
    except _BROKEN as error:
        on_skip(Skipped(path, f"{part} is cut short or damaged ({error}). Copy it again."))
    for scene, members in sorted(scenes.items(), key=lambda item: natural_key(item[0])):

        def row(item: tuple[int, _Member], scene: str = scene) -> ManifestRow:
            frame, member = item
            if member.store is None:
                raise DataError(
                    f"{member.name} in {part} is encrypted, or packed in a way that is not read. Unpack it."
                )
            image = Ref(path, offset=member.offset, length=member.length, store=member.store)
            height, width = photo_size(image.within(root))
            return ManifestRow(dataset="archive", scene=scene, frame=frame, image=image, width=width, height=height)

        members.sort(key=lambda member: natural_key(str(member.name)))
        yield from each_frame(enumerate(members), row, lambda item: f"{path}:{item[1].name}", on_skip)


def _members(path: Path) -> Iterator[_Member]:
    """The visible files of an archive, in the order that they lie in."""
    for member in _members_of_tar(path) if path.suffix.lower() == ".tar" else _members_of_zip(path):
        if not any(part[0] == "." or part in ("__MACOSX", "@eaDir") for part in member.name.parts):
            yield member


def _members_of_tar(path: Path) -> Iterator[_Member]:
    with tarfile.open(path, "r:") as tar:
        for held in tar:
            if held.isreg():
                yield _Member(PurePosixPath(held.name), held.offset_data, held.size, "file")


def _members_of_zip(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for held in archive.infolist():
            if held.is_dir():
                continue
            file.seek(held.header_offset)
            name, extra = struct.unpack("<26x2H", file.read(_LOCAL_HEADER))
            store = None if held.flag_bits & _ENCRYPTED else _STORES.get(held.compress_type)
            offset = held.header_offset + _LOCAL_HEADER + name + extra
            yield _Member(PurePosixPath(held.filename), offset, held.compress_size, store)


def _scene(name: PurePosixPath, part: Path) -> str:
    """The folder that a photo lies in; one called `images` stands for the folder above it."""
    folder = name.parent
    if folder.name.lower() in IMAGE_FOLDERS:
        folder = folder.parent
    return part.stem if folder == PurePosixPath() else folder.as_posix()


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="a zip or tar of photos, read in place",
    role="own",
    general=2,
    count=lambda parts: counted(len(parts), "archive"),
    modes=("images_only",),
)
