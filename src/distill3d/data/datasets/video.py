"""Videos: each file is a scene, of which frames are chosen by rate and later decoded in place."""

from collections.abc import Iterator
from pathlib import Path

from distill3d.data.rows import ManifestRow, OnSkip, Skipped, log_skip
from distill3d.data.video import VIDEO_SUFFIXES, choose_frames, video_info
from distill3d.data.walk import visible_files
from distill3d.errors import DataError
from distill3d.files import PathLike


def is_video(path: Path) -> bool:
    """Whether a file is called like a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def find_videos(root: PathLike) -> list[Path]:
    """The videos at or below `root`, in natural order; `root` may be a video itself."""
    root = Path(root)
    if root.is_file():
        return [root] if is_video(root) else []
    return [path for path in visible_files(root) if is_video(path)]


def scan(
    root: PathLike, *, rate: float = 2.0, max_frames: int | None = None, on_skip: OnSkip = log_skip
) -> Iterator[ManifestRow]:
    """List the chosen frames of every video at or below `root`; see `choose_frames`.

    Each video is read through once, because the frame counts in headers are not to be trusted.
    """
    root = Path(root)
    base = root.parent if root.is_file() else root
    for path in find_videos(root):
        inside = path.relative_to(base).as_posix()
        try:
            info = video_info(path)
        except DataError as error:
            on_skip(Skipped(inside, str(error)))
            continue
        for index in choose_frames(info, rate=rate, max_frames=max_frames):
            yield ManifestRow(
                dataset="video",
                scene=inside,
                frame=index,
                image=inside,
                width=info.width,
                height=info.height,
                video_frame=index,
            )
