"""Frames of a video, decoded in order: headers lie about counts, and seeking lands on other frames with some codecs."""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from distill3d.errors import DataError
from distill3d.files import PathLike
from distill3d.progress import ProgressBar

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv", ".ogv"}
)
"""Names that are taken for videos, in lower case."""

_FALLBACK_FPS = 30.0


@dataclass(frozen=True)
class VideoInfo:
    """What a video really holds."""

    path: Path
    num_frames: int
    """Frames that can be decoded, counted by going through them."""
    fps: float
    """Frames per second on average."""
    height: int
    width: int
    """Size in pixels, upright."""

    @property
    def seconds(self) -> float:
        """Length of the video."""
        return self.num_frames / self.fps


class VideoReader:
    """An open video that hands out frames by number; going forward is quick, going back starts again."""

    def __init__(self, path: PathLike) -> None:
        """Open the video.

        Raises:
            DataError: it does not exist, or is nothing that can be decoded.
        """
        self.path = Path(path)
        self._capture = _open_capture(self.path)
        self._next = 0  # number of the frame that the next grab gives

    def read(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Frame number `index` as RGB.

        Raises:
            DataError: the video ends before it, or the frame is damaged.
        """
        if index < self._next:
            self.close()
            self._capture = _open_capture(self.path)
            self._next = 0
        while self._next <= index:
            if not self._capture.grab():
                raise DataError(
                    f"{self.path} ends after {self._next} frames, expected a frame number {index}. "
                    "The file may have changed or be cut short; build the manifest again."
                )
            self._next += 1
        decoded, frame = self._capture.retrieve()
        if not decoded or frame is None or frame.ndim != 3:
            raise DataError(f"Frame {index} of {self.path} cannot be decoded. Convert the video to H.264 in MP4.")
        return np.ascontiguousarray(frame[..., ::-1])

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VideoPool:
    """Keeps the last few videos open, so that view groups read one after another do not start each from frame 0.

    Not to be shared between processes or threads.
    """

    def __init__(self, capacity: int = 4) -> None:
        self.capacity = capacity
        self._readers: dict[Path, VideoReader] = {}

    def read(self, path: PathLike, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Frame number `index` of a video as RGB; see `VideoReader.read`."""
        path = Path(path)
        reader = self._readers.pop(path, None) or VideoReader(path)
        self._readers[path] = reader  # now the most recently used one
        while len(self._readers) > self.capacity:
            self._readers.pop(next(iter(self._readers))).close()
        return reader.read(index)

    def close(self) -> None:
        """Close all videos."""
        while self._readers:
            self._readers.popitem()[1].close()

    def __enter__(self) -> "VideoPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def video_info(path: PathLike) -> VideoInfo:
    """Go through a video once and say what it holds.

    Raises:
        DataError: it does not exist, or no frame of it can be decoded.
    """
    import cv2

    path = Path(path)
    with VideoReader(path) as reader:
        first = reader.read(0)
    capture = _open_capture(path)
    try:
        told_fps, told_frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        total = int(told_frames) if math.isfinite(told_frames) and 0 < told_frames < 1e8 else None
        count, last_seconds = 0, 0.0
        with ProgressBar(f"counting frames of {path.name}", total, unit="frames") as bar:
            while capture.grab():
                count += 1
                last_seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                bar.advance()
    finally:
        capture.release()
    if total is not None and total != count:
        logger.info("%s: the header says %d frames, %d can be decoded", path.name, total, count)
    return VideoInfo(path, count, _true_fps(told_fps, count, last_seconds), *first.shape[:2])


def choose_frames(
    info: VideoInfo, *, rate: float = 2.0, max_frames: int | None = None, at_least: int = 2
) -> tuple[int, ...]:
    """Numbers of the frames to use, evenly spread from the first to the last.

    Args:
        info: of the video.
        rate: frames per second of video.
        max_frames: if `rate` gives more, this many are spread over the whole video instead.
        at_least: as many are taken from a video too short for `rate`, as far as it has them.

    Raises:
        DataError: `rate` is not positive or `max_frames` is below 1.
    """
    if not rate > 0 or (max_frames is not None and max_frames < 1):
        raise DataError(
            f"Cannot choose frames with rate={rate} and max_frames={max_frames}; expected positive numbers."
        )
    step = max(1.0, info.fps / rate)
    wanted = max(math.floor((info.num_frames - 1) / step) + 1, min(at_least, info.num_frames))
    count = wanted if max_frames is None else min(wanted, max_frames)
    if count == wanted > at_least:
        return tuple(round(number * step) for number in range(count))
    return spread(info.num_frames, count)


def spread(total: int, count: int) -> tuple[int, ...]:
    """`count` of the numbers 0 .. total - 1, evenly spread, with both ends where there are two or more."""
    count = min(count, total)
    if count < 2:
        return (0,) * count
    return tuple(round(number * (total - 1) / (count - 1)) for number in range(count))


def read_video_frames(
    path: PathLike, indices: Sequence[int]
) -> Iterator[tuple[int, UInt8[np.ndarray, "height width 3"]]]:
    """Yield (number, RGB frame) for each of `indices` in ascending order, one at a time.

    Raises:
        DataError: the video cannot be opened or ends before the last of them.
    """
    with VideoReader(path) as reader:
        for index in sorted(set(indices)):
            yield index, reader.read(index)


def _open_capture(path: Path) -> Any:
    if not path.exists():
        raise DataError(f"{path} does not exist, expected a video. Check the path.")
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a video file.")
    # FFmpeg would print its own words to stderr about every damaged packet.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    # FFmpeg alone: other backends take a text file for the first of a numbered series of pictures.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if capture.isOpened():
        return capture
    capture.release()
    reason = "is empty (0 bytes)" if path.stat().st_size == 0 else "cannot be decoded as a video"
    raise DataError(
        f"{path} {reason}; expected MP4, MOV, AVI, MKV or WebM with a common codec. "
        "Convert it to H.264 in MP4, or give a folder of photos."
    )


def _true_fps(told: float, count: int, last_seconds: float) -> float:
    """The header's rate unless it is impossible or the time stamps contradict it by more than a tenth."""
    measured = (count - 1) / last_seconds if count > 1 and last_seconds > 0 else math.nan
    believable = math.isfinite(told) and 0.1 <= told <= 1000
    if math.isfinite(measured) and 0.1 <= measured <= 1000 and not (believable and abs(told / measured - 1) < 0.1):
        return measured
    return told if believable else _FALLBACK_FPS
