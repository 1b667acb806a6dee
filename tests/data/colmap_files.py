"""COLMAP models written for the tests, text and binary, after https://colmap.github.io/format.html."""

import struct
from pathlib import Path

import numpy as np

MODEL_NUMBERS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "OPENCV": 4, "OPENCV_FISHEYE": 5}

# Cameras: id, model, width, height, params.
# Images: id, quaternion and translation, camera, name, rows of (x, y, point).
# Points: id, place, colour, error, track of (image, number of the observation).
CAMERAS = [(1, "SIMPLE_RADIAL", 64, 48, (50.0, 32.0, 24.0, 0.05)), (7, "PINHOLE", 40, 30, (30.0, 31.0, 20.0, 15.0))]
IMAGES = [
    (3, (0.5, 0.5, 0.5, 0.5, 1.0, 2.0, 3.0), 1, "frame10.png", [(10.5, 20.5, 4), (1.0, 2.0, 9), (3.0, 3.0, -1)]),
    (2, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0), 7, "frame9.png", []),
]
POINTS = [(9, (1.0, 2.0, 3.0), (255, 0, 7), 0.5, [(3, 1)]), (4, (-1.0, 0.0, 5.0), (1, 2, 3), 0.25, [(3, 0)])]


def write_text(folder: Path, cameras=CAMERAS, images=IMAGES, points=POINTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    header = "# three lines\n# of comment\n# come first\n"
    lines = [f"{i} {model} {w} {h} {' '.join(map(str, params))}" for i, model, w, h, params in cameras]
    (folder / "cameras.txt").write_text(header + "\n".join(lines) + "\n")
    lines = []
    for number, pose, camera, name, observed in images:
        lines.append(f"{number} {' '.join(map(str, pose))} {camera} {name}")
        lines.append(" ".join(f"{x} {y} {point}" for x, y, point in observed))
    (folder / "images.txt").write_text(header + "\n".join(lines) + "\n")
    lines = [
        f"{i} {' '.join(map(str, xyz))} {' '.join(map(str, rgb))} {error} "
        + " ".join(f"{image} {place}" for image, place in track)
        for i, xyz, rgb, error, track in points
    ]
    (folder / "points3D.txt").write_text(header + "\n".join(lines) + "\n")
    return folder


def write_binary(folder: Path, cameras=CAMERAS, images=IMAGES, points=POINTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    data = struct.pack("<Q", len(cameras))
    for number, model, width, height, params in cameras:
        data += struct.pack("<IiQQ", number, MODEL_NUMBERS[model], width, height) + np.array(params).tobytes()
    (folder / "cameras.bin").write_bytes(data)
    data = struct.pack("<Q", len(images))
    for number, pose, camera, name, observed in images:
        data += struct.pack("<I7dI", number, *pose, camera) + name.encode() + b"\0" + struct.pack("<Q", len(observed))
        data += b"".join(struct.pack("<ddq", *row) for row in observed)
    (folder / "images.bin").write_bytes(data)
    data = struct.pack("<Q", len(points))
    for number, xyz, rgb, error, track in points:
        data += struct.pack("<Q3d3BdQ", number, *xyz, *rgb, error, len(track))
        data += b"".join(struct.pack("<II", *row) for row in track)
    (folder / "points3D.bin").write_bytes(data)
    return folder
