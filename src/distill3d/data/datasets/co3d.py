"""CO3D v2: turntable films of objects in 51 categories.

<category>/frame_annotations.jgz                 gzip of one JSON list of cameras and paths, read as a stream
<category>/set_lists/set_lists_fewview_*.json    frames for training and testing; optional
<category>/<sequence>/{images/frame000001.jpg,depths/frame000001.jpg.geometric.png,depth_masks/frame000001.png,masks}

Cameras are PyTorch3D's, in either of its two normalised units. The sixteen bits of a depth pixel are those of a half
float, times the `scale_adjustment` of its frame. `depth_masks` tell which are reliable. Depth and poses of a sequence
share an unknown unit.
"""

import codecs
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, read_part, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, Skipped, natural_key
from distill3d.errors import DataError
from distill3d.files import read_json
from distill3d.geometry.conventions import intrinsics_from_ndc, pose_from_pytorch3d

_LICENCE = "CC BY-NC 4.0"
_ANNOTATIONS = "frame_annotations.jgz"
_CHUNK = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")


def find(root: Path) -> Sequence[Path]:
    """The folders of categories, with or without annotations."""
    if annotated := below(root, _ANNOTATIONS, depth=1):
        return [path.parent for path in annotated]
    return sorted({path.parents[2] for path in below(root, "*/images/frame000001.jpg", depth=1)}, key=natural_key)


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one category, counted as its annotations do; as the files do, where only pictures are wanted."""
    if options.mode == "images_only":
        photos = sorted(part.glob("*/images/frame[0-9]*.jpg"), key=natural_key)
        yield from each_frame(
            photos, lambda photo: _photo(photo, part, root), lambda photo: inside(photo, root), on_skip
        )
        return
    splits = _Splits(part)
    base = part.parent  # paths in the annotations start with the category

    def row(frame: Mapping[str, Any]) -> ManifestRow:
        photo = required(base / frame["image"]["path"], "picture")
        height, width = frame["image"]["size"]
        view, size = frame["viewpoint"], (int(height), int(width))
        rotation, translation, focal, principal = (
            torch.tensor(view[key], dtype=torch.float64) for key in ("R", "T", "focal_length", "principal_point")
        )
        unit = view.get("intrinsics_format", "ndc_norm_image_bounds")
        if unit not in ("ndc_isotropic", "ndc_norm_image_bounds"):
            raise DataError(f"{photo}: the camera is in {unit!r}, expected ndc_isotropic or ndc_norm_image_bounds.")
        intrinsics = intrinsics_from_ndc(focal, principal, size, isotropic=unit == "ndc_isotropic")
        depth = required(base / frame["depth"]["path"], "depth map")
        scale = float(frame["depth"].get("scale_adjustment", 1.0))
        mask = base / (frame["depth"].get("mask_path") or "?")
        return photo_row(
            photo,
            root,
            dataset="co3d",
            scene=_scene(frame["sequence_name"], part, root),
            frame=_file_number(photo),
            timestamp=frame.get("frame_timestamp"),
            size=size,
            intrinsics=as_matrix(intrinsics),
            world_from_camera=as_matrix(pose_from_pytorch3d(rotation, translation)),
            depth=Ref(inside(depth, root), codec("float16-png", scale=scale)),
            depth_mask=Ref(inside(mask, root), "mask") if mask.is_file() else None,
            split=splits.of(frame["sequence_name"], frame["frame_number"]),
            scale="sfm",
            licence=_LICENCE,
        )

    absent: Counter[Path] = Counter()
    annotations = _of_present_folders(stream_list(required(part / _ANNOTATIONS, "file of annotations")), base, absent)
    yield from each_frame(annotations, row, _name, on_skip)
    for folder, count in absent.items():
        reason = f"{folder} does not exist: {count} frames are left out. Download it, or use --mode images_only."
        on_skip(Skipped(inside(folder, root), reason))


def _of_present_folders(frames: Iterator[Any], base: Path, absent: "Counter[Path]") -> Iterator[Any]:
    """Pass on the frames whose folders of pictures and depth are there, and count the others by what they lack.

    Annotations name all sequences of a category, of which a part may have been downloaded.
    """
    present: dict[Path, bool] = {}
    for frame in frames:
        try:
            folders = [(base / frame[kind]["path"]).parent for kind in ("image", "depth")]
        except (TypeError, LookupError):
            yield frame  # it has no paths, and is told of with the broken ones
            continue
        for folder in folders:
            if folder not in present:
                present[folder] = folder.is_dir()
        lacking = [folder for folder in folders if not present[folder]]
        if lacking:
            absent[lacking[0]] += 1
        else:
            yield frame


def stream_list(path: Path) -> Iterator[Any]:
    """The entries of a gzipped JSON list one by one, with no more of it in memory than one entry and a megabyte.

    Raises:
        DataError: it is damaged, cut short, or no list.
    """
    decoder, to_text = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")()
    try:
        with gzip.open(path, "rb") as file:
            text = to_text.decode(file.read(_CHUNK)).lstrip()
            if not text.startswith("["):
                raise ValueError("it holds no list")
            at = 1
            while True:
                at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing as well
                if text.startswith("]", at):
                    return
                try:
                    entry, end = decoder.raw_decode(text, at)
                except json.JSONDecodeError:
                    end = len(text)
                if end < len(text):  # else a number may go on in the next chunk
                    yield entry
                    at = end
                    continue
                more = file.read(_CHUNK)
                if not more:
                    raise ValueError("it is cut short")
                text, at = text[at:] + to_text.decode(more), 0
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Download it again.") from error


def _photo(photo: Path, part: Path, root: Path) -> ManifestRow:
    scene = _scene(photo.parents[1].name, part, root)
    return photo_row(photo, root, dataset="co3d", scene=scene, frame=_file_number(photo), licence=_LICENCE)


def _file_number(photo: Path) -> int:
    """The number in the name of a picture, which grows with time as `frame_number` does and need not equal it."""
    return int(photo.stem.removeprefix("frame"))


def _scene(sequence: str, part: Path, root: Path) -> str:
    return f"{part.resolve().name}/{sequence}" if part == root else f"{inside(part, root)}/{sequence}"


def _name(frame: Any) -> str:
    try:
        return str(frame["image"]["path"])
    except (TypeError, KeyError):
        return "an entry of " + _ANNOTATIONS


class _Splits:
    """Split of each frame, by the lists of the few-view task."""

    def __init__(self, part: Path) -> None:
        self._frames: dict[tuple[str, int], str] = {}
        self._sequences: dict[str, str] = {}
        # Sequences of the other two lists are held out as a whole.
        for subset, held_out in (("train", None), ("dev", "val"), ("test", "test")):
            path = part / f"set_lists/set_lists_fewview_{subset}.json"
            lists = read_part("list of frames", path, read_json) if path.is_file() else {}
            for key in ("train", "val", "test"):
                for sequence, number, *_ in lists.get(key, []):
                    self._frames.setdefault((sequence, number), held_out or key)
                    self._sequences.setdefault(sequence, held_out or key)

    def of(self, sequence: str, number: int) -> str:
        """That of the frame, or of its sequence where the lists pass over the frame."""
        return self._frames.get((sequence, number), self._sequences.get(sequence, ""))


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="CO3D v2",
    role="training",
    count=lambda parts: "1 category" if len(parts) == 1 else f"{len(parts)} categories",
    url="https://github.com/facebookresearch/co3d",
    size="5.5 TB; the subset of single sequences 8.9 GB",
    licence=_LICENCE,
    sharing="non-commercially, with attribution: also depth and caches",
)
