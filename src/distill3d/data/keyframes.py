"""Which frames of a video are worth taking: sharp ones, and none while the camera stands still."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from distill3d.data.video import VideoInfo, VideoReader
from distill3d.progress import track

logger = logging.getLogger(__name__)

STILL = 2.0
"""Mean difference of two tiny gray pictures, of 255, up to which nothing has moved: the noise of a phone."""
_SHARPNESS_SIDE = 320
_MOTION_SIZE = (32, 24)


class _Candidate(NamedTuple):
    number: int
    sharpness: float
    tiny: UInt8[np.ndarray, "height width"]


def sharpest_frames(info: VideoInfo, chosen: Sequence[int], *, at_least: int = 2) -> tuple[int, ...]:
    """Move each chosen moment to the sharpest frame nearer to it than to the next one; drop those that show no motion.

    The video is decoded once. Sharpness is the variance of the Laplacian of the picture at 320 pixels, motion the mean
    difference to the last frame that was taken.

    Args:
        info: of the video.
        chosen: numbers of frames, ascending, as `choose_frames` gives them.
        at_least: so many are kept even if nothing moves, as far as there are.

    Raises:
        DataError: the video cannot be decoded.
    """
    best = _sharpest(info.path, _windows(chosen, info.num_frames))
    moving = best[:1]
    for candidate in best[1:]:
        if _difference(candidate.tiny, moving[-1].tiny) > STILL:
            moving.append(candidate)
    if len(moving) < min(at_least, len(best)):
        moving = best[: max(at_least, 1)] if len(best) <= at_least else [*best[: at_least - 1], best[-1]]
    logger.info("%s: took %d sharp frames of %d moments", info.path.name, len(moving), len(chosen))
    return tuple(candidate.number for candidate in moving)


def sharpness(pixels: UInt8[np.ndarray, "height width 3"]) -> float:
    """Variance of the Laplacian at a fixed size: larger is sharper, for pictures of one scene."""
    import cv2

    gray = _gray(pixels, (_SHARPNESS_SIDE, max(1, round(_SHARPNESS_SIDE * pixels.shape[0] / pixels.shape[1]))))
    return float(cv2.Laplacian(gray, cv2.CV_64F).var())


def _windows(chosen: Sequence[int], total: int) -> list[range]:
    """Frames that are nearer to a chosen moment than to any other; without overlap."""
    middles = [(a + b + 1) // 2 for a, b in itertools.pairwise(chosen)]
    reach = (chosen[1] - chosen[0]) // 2 if len(chosen) > 1 else 0
    starts = [max(chosen[0] - reach, 0), *middles]
    stops = [*middles, min(chosen[-1] + reach + 1, total)]
    return [range(start, stop) for start, stop in zip(starts, stops, strict=True)]


def _sharpest(path: Path, windows: Sequence[range]) -> list[_Candidate]:
    found = []
    with VideoReader(path) as reader:
        for window in track(windows, f"looking for sharp frames of {path.name}", unit="moments"):
            best: _Candidate | None = None
            for index in window:
                pixels = reader.read(index)
                value = sharpness(pixels)
                if best is None or value > best.sharpness:
                    best = _Candidate(index, value, _gray(pixels, _MOTION_SIZE))
            assert best is not None
            found.append(best)
    return found


def _gray(pixels: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "_ _"]:
    return np.asarray(Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX))


def _difference(first: UInt8[np.ndarray, "height width"], second: UInt8[np.ndarray, "height width"]) -> float:
    return float(np.abs(first.astype(np.int64) - second).mean())
