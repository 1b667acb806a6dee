"""Looking whether a manifest tells the truth: files that can be read, and depth that agrees with the cameras."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from distill3d.data.consistency import TOLERANCE, PosedDepth, diagnose
from distill3d.data.frames import read_depth
from distill3d.data.rows import ManifestRow, Skipped
from distill3d.data.table import Manifest
from distill3d.data.verify import verify_files
from distill3d.data.video import spread
from distill3d.errors import DataError
from distill3d.geometry.cameras import resize_intrinsics
from distill3d.progress import track

GOOD_SHARE = 0.7
"""Scenes with a smaller share of consistent pixels are suspicious; occlusion alone rarely costs more than a quarter."""
_STEPS = (1, 2, 5)
_FARTHEST_M, _NEAREST_M = 2000.0, 0.02


@dataclass(frozen=True)
class SceneCheck:
    """How depth and cameras of one scene agree."""

    scene: str
    pairs: int
    """Pairs of frames that were compared."""
    share: float
    """Share of pixels whose depth agrees, among those that both frames of a pair see; NaN if they see none."""
    error: float
    """Median relative difference of those that agree."""
    mistake: str | None
    """What is wrong, where a classic mistake explains it."""

    @property
    def is_good(self) -> bool:
        """Nothing speaks against the scene."""
        return self.mistake is None and not self.share < GOOD_SHARE

    def describe(self) -> str:
        """In words: what was compared, and what is wrong."""
        seen = "no pixel is seen twice" if math.isnan(self.share) else f"{self.share:.0%} of the pixels agree"
        words = f"{self.scene}: {seen} to {TOLERANCE:.0%} over {self.pairs} pairs"
        if self.mistake is not None:
            return f"{words}; it looks as if {self.mistake}"
        if self.is_good:
            return words
        return f"{words}; none of the classic mistakes explains it: poses may be poor, or things may move"


@dataclass(frozen=True)
class Checked:
    """What a check found."""

    broken: tuple[Skipped, ...]
    """Files of the sample that are missing, damaged or changed."""
    frames: int
    """Frames in the sample whose files were decoded."""
    scenes: tuple[SceneCheck, ...]
    """Scenes of the sample that have depth and cameras."""


def check_manifest(
    manifest: Manifest, *, frames: int | None = 1000, scenes: int | None = 50, anchors: int = 4, seed: int = 0
) -> Checked:
    """Decode a sample of everything that a manifest names, and compare depth between neighbouring views.

    Args:
        manifest: what is checked.
        frames: decode the files of so many frames, spread over all; every one if `None`.
        scenes: compare so many scenes, drawn by `seed`; all if `None`.
        anchors: frames of a scene that are compared with some of their next ones.
        seed: for the draw.
    """
    for name, number in (("frames", frames), ("scenes", scenes)):
        if number is not None and number < 0:
            raise DataError(f"{name} is {number}, expected 0 or more.")
    broken = verify_files(manifest, frames)
    table = manifest.scene_table
    with_depth = [
        scene["scene"]
        for scene in table.select(["scene", "depth", "poses", "intrinsics"]).to_pylist()
        if min(scene["depth"], scene["poses"], scene["intrinsics"]) >= 2
    ]
    if scenes is not None and len(with_depth) > scenes:
        with_depth = [with_depth[place] for place in sorted(random.Random(seed).sample(range(len(with_depth)), scenes))]
    found = [
        check
        for scene in track(with_depth, "comparing depth between views", unit="scenes")
        if (check := check_scene(manifest, scene, anchors=anchors)) is not None
    ]
    return Checked(broken, len(manifest) if frames is None else min(frames, len(manifest)), tuple(found))


def check_scene(manifest: Manifest, scene: str, *, anchors: int = 4) -> SceneCheck | None:
    """Compare the depth of neighbouring frames of a scene; `None` if there are no two that could be compared.

    Raises:
        DataError: there is no such scene.
    """
    rows = [row for row in manifest.rows(scene) if _is_posed(row)]
    pairs = list(_pairs(rows, manifest.root, anchors))
    if not pairs:
        return None
    found, mistake = diagnose(pairs)
    if mistake is None and rows[0].is_metric:
        mistake = _implausible(np.concatenate([first.depth[first.depth > 0] for first, _ in pairs]))
    return SceneCheck(scene, len(pairs), found.share, found.error, mistake)


def _is_posed(row: ManifestRow) -> bool:
    known = (row.depth, row.intrinsics, row.world_from_camera)
    return row.scale != "relative" and all(value is not None for value in known)


def _pairs(rows: list[ManifestRow], root: Path, anchors: int) -> Iterator[tuple[PosedDepth, PosedDepth]]:
    read: dict[int, PosedDepth | None] = {}

    def frame(place: int) -> PosedDepth | None:
        if place not in read:
            read[place] = posed_depth(rows[place], root)
        return read[place]

    for place in spread(max(len(rows) - 1, 0), anchors):
        for step in _STEPS:
            if place + step < len(rows):
                first, second = frame(place), frame(place + step)
                if first is not None and second is not None:
                    yield first, second
                    yield second, first


def posed_depth(row: ManifestRow, root: Path) -> PosedDepth | None:
    """The depth and camera of a frame that has both; `None` where the depth cannot be read or knows nothing."""
    try:
        depth = read_depth(row, root)
    except DataError:
        return None  # listed among the broken files
    if depth is None or not (depth > 0).any():
        return None
    intrinsics = torch.tensor(row.intrinsics, dtype=torch.float64)
    scaled = resize_intrinsics(intrinsics, (row.height, row.width), (depth.shape[0], depth.shape[1]))
    return PosedDepth(depth, scaled.numpy(), np.array(row.world_from_camera), row.distortion)


def _implausible(depth: np.ndarray) -> str | None:
    """Depth and poses may share a wrong unit, which no comparison can see."""
    median = float(np.median(depth))
    if _NEAREST_M <= median <= _FARTHEST_M:
        return None
    return f"depth and poses share a wrong unit: half of the depth is beyond {median:.3g} m"
