"""How much of one frame another one shows: from depth and cameras, or guessed from the pictures alone."""

import itertools

import numpy as np
from jaxtyping import Float, UInt8

from distill3d.data.check import posed_depth
from distill3d.data.consistency import agreement
from distill3d.data.frames import read_picture
from distill3d.data.rows import ManifestRow
from distill3d.data.table import Manifest
from distill3d.data.video import VideoPool
from distill3d.errors import DataError

_POINTS = 300
_CELLS, _BINS, _SIDE = 4, 8, 64


def scene_overlap(manifest: Manifest, scene: str, frames: tuple[int, ...]) -> Float[np.ndarray, "frames frames"]:
    """Overlap of each two frames of a scene, 0 to 1; 1 on the diagonal. Symmetric: the smaller of both directions.

    With depth, intrinsics and poses it is the share of points of one frame that the other sees at the same depth.
    Without any of them it is the likeness of the pictures (see `picture_descriptor`), which orders frames by what they
    show but is no share of anything. A frame that cannot be read overlaps with none.

    Raises:
        DataError: there is no such scene or frame.
    """
    rows = [manifest.row(scene, frame) for frame in frames]
    overlap = np.eye(len(rows))
    if all(row.depth and row.intrinsics and row.world_from_camera for row in rows):
        posed = [posed_depth(row, manifest.root) for row in rows]
        for first, second in itertools.combinations(range(len(rows)), 2):
            one, other = posed[first], posed[second]
            if one is not None and other is not None:
                found = [agreement([pair], _POINTS) for pair in ((one, other), (other, one))]
                overlap[first, second] = min(side.consistent / max(side.known, 1) for side in found)
        return np.maximum(overlap, overlap.T)
    with VideoPool() as videos:
        described = [_descriptor(row, manifest, videos) for row in rows]
    for first, second in itertools.combinations(range(len(rows)), 2):
        left, right = described[first], described[second]
        if left is not None and right is not None:
            overlap[first, second] = overlap[second, first] = max(float(left @ right), 0.0)
    return overlap


def picture_descriptor(pixels: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, " dim"]:
    """What a picture looks like, of length 1 (0 if it is even): histograms of edge
    directions in 4x4 cells, and their colours.

    Small and without weights (after HOG, Dalal and Triggs 2005): enough to tell the next frame from another room.
    """
    values = pixels.astype(np.float64) / 255
    gray = values.mean(axis=-1)
    down, right = np.gradient(gray)
    strength, direction = np.hypot(down, right), np.mod(np.arctan2(down, right), np.pi)
    bins = np.minimum((direction / np.pi * _BINS).astype(np.int64), _BINS - 1)
    height, width = gray.shape
    cell = (np.arange(height) * _CELLS // height)[:, None] * _CELLS + (np.arange(width) * _CELLS // width)[None]
    edges = np.zeros((_CELLS * _CELLS, _BINS))
    np.add.at(edges, (cell, bins), strength)
    colours = np.stack([values[cell == number].mean(axis=0) for number in range(_CELLS * _CELLS)])
    colours = colours - colours.mean()
    parts = [part.ravel() / max(float(np.linalg.norm(part)), 1e-9) for part in (np.sqrt(edges), colours)]
    joined = np.concatenate(parts)
    return np.asarray(joined / max(float(np.linalg.norm(joined)), 1e-9))


def _descriptor(row: ManifestRow, manifest: Manifest, videos: VideoPool) -> Float[np.ndarray, " dim"] | None:
    try:
        return picture_descriptor(read_picture(row, manifest.root, (_SIDE, _SIDE), videos))
    except DataError:
        return None
