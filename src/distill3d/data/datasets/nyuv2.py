"""NYUv2: 1449 indoor photos with in-filled Kinect depth, in one MATLAB file.

nyu_depth_v2_labeled.mat    `images`, `depths` (metres), `rawDepths` (before filling); HDF5 with the axes in reverse
splits.mat                  trainNdxs (795), testNdxs (654), counted from 1

Frame numbers count from 0 in the order of the file. The camera (518.86, 519.47, 325.58, 253.74 for 640 x 480) is the
one in common use; it has not been checked against the originals.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from distill3d.data.codecs.containers import open_hdf5
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.listing import below, inside, read_part, scaled_pinhole
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip
from distill3d.errors import DataError

_FILE = "nyu_depth_v2_labeled.mat"
_SIZE = (480, 640)
_LICENCE = "none stated; research use (not verified)"


def find(root: Path) -> Sequence[Path]:
    """The MATLAB file."""
    return [root] if root.name == _FILE else below(root, _FILE)


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """All pictures of the file; they show many places in no order."""
    shape = read_part("file of labelled pictures", part, _shape)
    if len(shape) != 4 or shape[1] != 3:
        raise DataError(f"{part}: images has shape {shape}, expected [count, 3, width, height]. Download it again.")
    count, _, width, height = shape
    splits = _splits(part.with_name("splits.mat"))
    full = options.mode == "full"
    for index in range(count):
        depth = codec("hdf5", key="depths", index=index, axes="wh")
        yield ManifestRow(
            dataset="nyuv2",
            scene="nyuv2",
            frame=index,
            image=Ref(inside(part, root), codec("nyuv2", index=index)),
            width=width,
            height=height,
            ordered=False,
            intrinsics=scaled_pinhole(518.86, 519.47, 325.58, 253.74, _SIZE, (height, width)) if full else None,
            depth=Ref(inside(part, root), depth) if full else None,
            split=splits.get(index, ""),
            scale="metric" if full else "",
            licence=_LICENCE,
        )


def _shape(path: Path) -> tuple[int, ...]:
    with open_hdf5(path) as archive:
        return tuple(archive["images"].shape)


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
