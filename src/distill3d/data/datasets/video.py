"""Videos: each file is a scene, of which frames are chosen by rate and later decoded in place."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from distill3d.data.datasets import DatasetSpec, ScanOptions, counted
from distill3d.data.keyframes import sharpest_frames
from distill3d.data.refs import Ref
from distill3d.data.rows import ManifestRow, OnSkip, Skipped
from distill3d.data.video import VIDEO_SUFFIXES, choose_frames, video_info
from distill3d.data.walk import visible_files
from distill3d.errors import DataError


def is_video(path: Path) -> bool:
    """Whether a file is called like a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def find(root: Path) -> Sequence[Path]:
    """The videos at or below `root`, in natural order; `root` may be a video itself."""
    if root.is_file():
        return [root] if is_video(root) else []
    return [path for path in visible_files(root) if is_video(path)]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """List the chosen frames of one video; see `choose_frames`.

    The video is read through once, because the frame counts in headers are not to be trusted.
    """
    inside = part.relative_to(root).as_posix()
    try:
        info = video_info(part)
    except DataError as error:
        on_skip(Skipped(inside, str(error)))
        return
    chosen = choose_frames(info, rate=options.rate, max_frames=options.max_frames, at_least=options.at_least)
    for index in sharpest_frames(info, chosen, at_least=options.at_least) if options.sharpest else chosen:
        yield ManifestRow(
            dataset="video",
            scene=inside,
            frame=index,
            image=Ref(inside, "frame", offset=index, store="video"),
            width=info.width,
            height=info.height,
            timestamp=index / info.fps,
        )


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="videos, of which frames are decoded in place",
    role="own",
    general=3,
    count=lambda parts: counted(len(parts), "video"),
    modes=("images_only",),
)
