"""Finding out what a path holds: photos, scenes of photos, a video, or annotated scenes."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from distill3d.data.datasets import annotated, photos, video
from distill3d.data.decode import resize_pixels, to_unit_range
from distill3d.data.fit import ImageFit, canvas_size
from distill3d.data.groups import group_intrinsics, group_poses
from distill3d.data.images import LoadedViews, load_views
from distill3d.data.placement import find_placement, place_image
from distill3d.data.rows import ManifestRow, OnSkip, Skipped, log_skip
from distill3d.data.video import choose_frames, read_video_frames, spread, video_info
from distill3d.data.walk import visible_files
from distill3d.errors import DataError
from distill3d.files import PathLike
from distill3d.progress import track
from distill3d.types import Views

logger = logging.getLogger(__name__)

Kind = Literal["photos", "video", "annotated"]


@dataclass(frozen=True)
class Source:
    """What was found at a path."""

    kind: Kind
    path: Path
    root: Path
    """Paths in a manifest of this source are relative to it."""
    num_scenes: int
    num_items: int
    """Photos, videos or scene files."""

    def describe(self) -> str:
        """In words: "13 photos of 1 scene in photos/"."""
        scenes = f"{self.num_scenes} scene" + ("s" if self.num_scenes != 1 else "")
        items = f"{self.num_items} {'photo' if self.kind == 'photos' else 'video'}" + (
            "s" if self.num_items != 1 else ""
        )
        counted = {"photos": f"{items} of {scenes}", "video": items, "annotated": f"{scenes} with annotations"}
        return f"{counted[self.kind]} in {self.path}"

    def scan(
        self, *, rate: float = 2.0, max_frames: int | None = None, on_skip: OnSkip = log_skip
    ) -> Iterator[ManifestRow]:
        """List its frames; `rate` (frames per second) and `max_frames` (of each) are for videos."""
        if self.kind == "video":
            return video.scan(self.path, rate=rate, max_frames=max_frames, on_skip=on_skip)
        if self.kind == "annotated":
            return annotated.scan(self.root, on_skip=on_skip)
        return photos.scan(self.path, on_skip=on_skip)


def find_source(path: PathLike) -> Source:
    """Look at a path and say what it holds: annotated scenes before photos before videos.

    Raises:
        DataError: there is nothing at the path that could be used; the message says what is there.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"{path} does not exist; expected a folder of photos, a folder of scenes or a video. Check the path."
        )
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise DataError(f"{path} may not be read: permission denied. Change its permissions.")
    root = path.parent if path.is_file() else path
    if path.name == annotated.SCENE_FILE:
        return find_source(root)
    if path.is_dir() and (scenes := annotated.find_scenes(path)):
        return _told(Source("annotated", path, root, len(scenes), len(scenes)))
    if found := photos.find_photos(path):
        return _told(Source("photos", path, root, len(found), sum(map(len, found.values()))))
    if videos := video.find_videos(path):
        return _told(Source("video", path, root, len(videos), len(videos)))
    raise DataError(_nothing_in(path))


def load_source(
    path: PathLike,
    fit: ImageFit,
    *,
    rate: float = 2.0,
    max_views: int | None = None,
    at_least: int = 2,
) -> LoadedViews:
    """Read the photos of one place, from a folder of photos, one annotated scene, or a video.

    Args:
        path: what to read; photos come in natural order of their names.
        fit: how they are laid out on one canvas.
        rate: frames per second, for a video.
        max_views: if there are more, this many are spread over all of them.
        at_least: how many readable photos the caller needs.

    Returns:
        The photos; of an annotated scene with its intrinsics and poses (in the frame of view 0), never with its depth.

    Raises:
        DataError: nothing usable, several scenes or videos, or fewer than `at_least` photos.
    """
    source = find_source(path)
    if source.num_scenes > 1:
        raise DataError(
            f"Found {source.describe()}, expected the photos of one place. Give one of the folders or files in it."
        )
    if source.kind == "video":
        return _load_video(video.find_videos(source.path)[0], fit, rate, max_views, at_least)
    if source.kind == "annotated":
        return _load_annotated(source, fit, max_views, at_least)
    (files,) = photos.find_photos(source.path).values()
    if max_views is not None:
        files = [files[index] for index in spread(len(files), max_views)]
    return load_views(files, fit, at_least=at_least)


def _load_annotated(source: Source, fit: ImageFit, max_views: int | None, at_least: int) -> LoadedViews:
    """The photos of a scene with the cameras that all of them have."""
    lost: list[Skipped] = []
    rows = list(source.scan(on_skip=lost.append))
    if max_views is not None:
        rows = [rows[index] for index in spread(len(rows), max_views)]
    files = [source.root / row.image for row in rows]
    upright = all(row.is_upright for row in rows)
    loaded = load_views(files, fit, at_least=at_least, upright=upright)
    broken = {entry.path for entry in loaded.skipped}
    kept = [row for row, file in zip(rows, files, strict=True) if str(file) not in broken]
    intrinsics, poses = group_intrinsics(kept, loaded.placements), group_poses(kept)
    views = replace(loaded.views, intrinsics=intrinsics, world_from_camera=poses)
    lost_files = [Skipped(str(source.root / entry.path), entry.reason) for entry in lost]
    return replace(loaded, views=views, skipped=(*lost_files, *loaded.skipped))


def _load_video(path: Path, fit: ImageFit, rate: float, max_views: int | None, at_least: int) -> LoadedViews:
    info = video_info(path)
    chosen = choose_frames(info, rate=rate, max_frames=max_views, at_least=at_least)
    if len(chosen) < at_least:
        raise DataError(f"{path} gives {len(chosen)} frames, expected at least {at_least}. Film for longer.")
    logger.info("%s: %d of %d frames at %.3g per second", path.name, len(chosen), info.num_frames, info.fps)
    size = (info.height, info.width)
    placement = find_placement(size, fit, canvas_size([size], fit))
    images = []
    for _, frame in track(read_video_frames(path, chosen), "reading frames", len(chosen), unit="frames"):
        images.append(to_unit_range(place_image(resize_pixels(frame, placement.resized), placement)))
    valid = placement.valid().expand(len(images), -1, -1)
    names = tuple(f"frame_{index:06d}" for index in chosen)
    return LoadedViews(Views(images=torch.stack(images)[None], valid=valid[None]), names, (placement,) * len(images))


def _told(source: Source) -> Source:
    logger.info("found %s", source.describe())
    return source


def _nothing_in(path: Path) -> str:
    expected = (
        "expected a folder of photos (JPEG, PNG, WebP, TIFF, HEIC, ...), a folder of scenes or a video (MP4, ...)"
    )
    if path.is_file():
        return f"{path} is neither a photo nor a video; {expected}. Check the name."
    kinds = Counter(file.suffix.lower() or "no suffix" for file in visible_files(path))
    if not kinds:
        return f"{path} is empty; {expected}. Check the path."
    held = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(4))
    return f"Found no photos or videos in {path}, only {sum(kinds.values())} other files ({held}); {expected}."
