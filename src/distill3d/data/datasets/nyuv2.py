"""NYUv2: 1449 indoor photos with in-filled Kinect depth, in one MATLAB file or in either layout made from it.

nyu_depth_v2_labeled.mat    `images`, `depths` (metres), `rawDepths` (before filling); HDF5 with the axes in reverse
splits.mat                  trainNdxs (795), testNdxs (654), counted from 1

val/official/<number>.h5                          FastDepth: `rgb` (3 x height x width) and `depth` (metres)
{train,test}/<scene>/rgb_0001.png  filled_0001.png  depth_0001.png        Marigold: sixteen-bit millimetres

Of the last, depth is the filled one where it is there, as in the others.

Frame numbers count from 0 in the order of the file. The camera (518.86, 519.47, 325.58, 253.74 for 640 x 480) is the
one in common use; it has not been checked against the originals.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from distill3d.data.codecs.containers import open_hdf5
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.listing import below, each_frame, inside, read_part, required, scaled_pinhole
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, natural_key
from distill3d.data.walk import scene_name
from distill3d.errors import DataError

_FILE = "nyu_depth_v2_labeled.mat"
_SIZE = (480, 640)
_PINHOLE = (518.86, 519.47, 325.58, 253.74)
_LICENCE = "none stated; research use (not verified)"


def find(root: Path) -> Sequence[Path]:
    """The MATLAB file, or the folders of the derived layouts."""
    if root.name == _FILE:
        return [root]
    if found := below(root, _FILE):
        return found
    if found := [folder for folder in below(root, "official", itself=True) if any(folder.glob("[0-9]*.h5"))]:
        return found
    return sorted({path.parent for path in below(root, "rgb_[0-9]*.png") if _is_cut(path)}, key=natural_key)


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """All pictures of the file or folder; they show many places in no order."""
    if part.is_dir():
        single = _read_hdf5 if part.resolve().name == "official" else _read_cut
        yield from single(part, root, options, on_skip)
        return
    shape = read_part("file of labelled pictures", part, _shape)
    if len(shape) != 4 or shape[1] != 3:
        raise DataError(f"{part}: images has shape {shape}, expected [count, 3, width, height]. Download it again.")
    count, _, width, height = shape
    splits = _splits(part.with_name("splits.mat"))
    full = options.mode == "full"
    for index in range(count):
        depth = Ref(inside(part, root), codec("hdf5", key="depths", index=index, axes="wh"))
        image = Ref(inside(part, root), codec("nyuv2", index=index))
        yield _row("nyuv2", index, image, (height, width), depth, splits.get(index, ""), full=full)


def _read_hdf5(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    def row(path: Path) -> ManifestRow:
        shape = read_part("picture", path, lambda path: _shape(path, "rgb"))
        if len(shape) != 3 or shape[0] != 3:
            raise DataError(f"{path}: rgb has shape {shape}, expected [3, height, width]. Download it again.")
        image = Ref(inside(path, root), "nyuv2")
        depth = Ref(inside(path, root), codec("hdf5", key="depth"))
        return _row("nyuv2", int(path.stem), image, shape[1:], depth, "test", full=options.mode == "full")

    paths = sorted(part.glob("[0-9]*.h5"), key=natural_key)
    return each_frame(paths, row, lambda path: inside(path, root), on_skip)


def _read_cut(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    split = part.parent.name if part.parent.name in ("train", "test") else ""
    scene = scene_name(part.relative_to(root), root)

    def row(photo: Path) -> ManifestRow:
        number = photo.stem.removeprefix("rgb_")
        depth = None
        if options.mode == "full":
            filled = photo.with_name(f"filled_{number}.png")
            path = filled if filled.is_file() else required(photo.with_name(f"depth_{number}.png"), "depth map")
            depth = Ref(inside(path, root), codec("png16", scale=0.001))
        image, size = Ref(inside(photo, root)), photo_size(photo, upright=False)
        return _row(scene, int(number), image, size, depth, split, full=options.mode == "full")

    photos = sorted((path for path in part.glob("rgb_[0-9]*.png") if _is_cut(path)), key=natural_key)
    return each_frame(photos, row, lambda photo: inside(photo, root), on_skip)


def _is_cut(path: Path) -> bool:
    """Whether a picture has the depth of the derived layout beside it."""
    number = path.stem.removeprefix("rgb_")
    return number.isdecimal() and any(path.with_name(f"{kind}_{number}.png").exists() for kind in ("filled", "depth"))


def _row(
    scene: str, frame: int, image: Ref, size: tuple[int, ...], depth: Ref | None, split: str, *, full: bool
) -> ManifestRow:
    height, width = size
    return ManifestRow(
        dataset="nyuv2",
        scene=scene,
        frame=frame,
        image=image,
        width=width,
        height=height,
        ordered=False,
        intrinsics=scaled_pinhole(*_PINHOLE, _SIZE, (height, width)) if full else None,
        depth=depth if full else None,
        split=split,
        scale="metric" if full else "",
        licence=_LICENCE,
    )


def _shape(path: Path, key: str = "images") -> tuple[int, ...]:
    with open_hdf5(path) as archive:
        return tuple(archive[key].shape)


def _splits(path: Path) -> dict[int, str]:
    """Split of each picture; none where the file is absent."""
    if not path.is_file():
        return {}
    from scipy.io import loadmat

    stored = read_part("splits", path, loadmat)
    names = {"train": "trainNdxs", "test": "testNdxs"}
    return {int(number) - 1: split for split, name in names.items() for number in stored[name].ravel()}


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="NYUv2",
    role="evaluation",
    url="https://cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html",
    size="2.8 GB",
    licence=_LICENCE,
    sharing="not verified",
)
