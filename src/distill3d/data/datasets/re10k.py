"""RealEstate10K: camera paths through houses, without depth; the frames are third-party video that users fetch.

RealEstate10K/{train,test}/<clip>.txt           a URL, then lines of: microseconds, fx fy cx cy (of width and height),
                                               two zeros, 3x4 camera from world
<clip>/<microseconds>.jpg  or  <clip>/images/0000.png (in the order of the lines), beside the text file

Lengths have another unknown unit in each clip. Clips whose video is gone have no frames and are left out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, read_part
from distill3d.data.rows import ManifestRow, OnSkip
from distill3d.errors import DataError
from distill3d.geometry.conventions import intrinsics_from_normalised
from distill3d.geometry.poses import invert_pose, pose_from_rt

_LICENCE = "camera files CC BY 4.0 (not verified); frames: third-party video"


def find(root: Path) -> Sequence[Path]:
    """The text files of clips."""
    found = below(root, "[0-9a-f]" * 16 + ".txt")
    if root.is_file() and root.suffix == ".txt" and len(root.stem) == 16:
        found = [root]
    return [path for path in found if _starts_with_url(path)]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one clip, numbered as the lines of its file."""
    lines = read_part("camera path", part, _read_lines)
    folder = part.with_suffix("")
    if not folder.is_dir():
        raise DataError(f"{part} has no frames beside it in {folder.name}/: fetch the video and cut them.")
    split = part.parent.name if part.parent.name in ("train", "test") else ""

    def row(item: tuple[int, np.ndarray]) -> ManifestRow:
        frame, numbers = item
        stamp = int(numbers[0])
        photo = _photo(folder, frame, stamp)
        common: dict[str, Any] = {
            "scene": part.stem,
            "frame": frame,
            "timestamp": stamp / 1e6,
            "split": split,
            "licence": _LICENCE,
        }
        if options.mode == "images_only":
            return photo_row(photo, root, dataset="re10k", **common)
        size = photo_size(photo, upright=False)
        fx, fy, cx, cy = numbers[1:5].tolist()
        normalised = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)
        camera_from_world = torch.from_numpy(numbers[7:].reshape(3, 4))
        pose = invert_pose(pose_from_rt(camera_from_world[:, :3], camera_from_world[:, 3]))
        return photo_row(
            photo,
            root,
            dataset="re10k",
            size=size,
            intrinsics=as_matrix(intrinsics_from_normalised(normalised, size)),
            world_from_camera=as_matrix(pose),
            scale="sfm",
            **common,
        )

    return each_frame(enumerate(lines), row, lambda item: f"{inside(part, root)} line {item[0] + 2}", on_skip)


def _starts_with_url(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"http"
    except OSError:
        return False


def _read_lines(path: Path) -> np.ndarray:
    rows = [line.split() for line in path.read_text().splitlines()[1:] if line.strip()]
    numbers = np.array(rows, dtype=np.float64)
    if numbers.ndim != 2 or numbers.shape[1] != 19:
        raise ValueError(f"its lines hold {numbers.shape[1:]} numbers, expected 19")
    return numbers[np.argsort(numbers[:, 0], kind="stable")]


def _photo(folder: Path, frame: int, stamp: int) -> Path:
    for name in (f"{stamp}.jpg", f"{stamp}.png", f"images/{frame:04d}.png", f"images/{frame:04d}.jpg"):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has no frame {stamp}.jpg or images/{frame:04d}.png.")


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="RealEstate10K",
    role="evaluation",
    url="https://google.github.io/realestate10k/",
    size="camera files: not verified; the frames have to be cut from video",
    licence=_LICENCE,
    sharing="cameras with attribution; frames no",
)
