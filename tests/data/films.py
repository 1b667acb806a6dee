"""Films made for the tests of `distill3d.data`: frame k has the gray level 6 k."""

from pathlib import Path

import cv2
import numpy as np

LEVEL = 6


def save_film(path: Path, frames: int = 30, fps: float = 10.0, height: int = 48, width: int = 64) -> Path:
    codec = {".avi": "MJPG", ".mp4": "mp4v"}[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for number in range(frames):
        frame = np.full((height, width, 3), LEVEL * number, dtype=np.uint8)
        frame[:, : width // 4] = (255, 0, 0)  # blue on the left, in OpenCV's order
        writer.write(frame)
    writer.release()
    return path


def frame_number(pixels: np.ndarray) -> int:
    """The number that a frame was made with, from its right half; [height width 3] of 8 bits."""
    return round(float(pixels[:, pixels.shape[1] // 2 :].mean()) / LEVEL)
