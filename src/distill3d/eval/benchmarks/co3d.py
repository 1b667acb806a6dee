"""CO3Dv2: poses of ten frames of a turn around an object.

VGGT's list: sequences of the `test` annotations with at least 50 images whose translations sum to at most 1e5.
"""

from collections.abc import Sequence

from distill3d.data.rows import ManifestRow
from distill3d.eval.benchmark import Published
from distill3d.eval.benchmarks._unordered import ten_frames

LEAST_FRAMES, LARGEST_SUM = 50, 1e5
PUBLISHED = (Published(method="VGGT", values={"auc_30": 88.2}, source="quoted, to be verified: VGGT's paper"),)


def category(scene: str) -> str:
    """The object's kind: the first folder of the scene's name."""
    return scene.split("/")[0]


def usable(rows: Sequence[ManifestRow]) -> bool:
    """Long enough, and with poses that are of a sensible size."""
    total = sum(abs(row.world_from_camera[axis][3]) for row in rows if row.world_from_camera for axis in range(3))
    return len(rows) >= LEAST_FRAMES and total <= LARGEST_SUM


BENCHMARKS = (
    ten_frames("co3d", "CO3Dv2 (VGGT)", "vggt", group_of=category, usable=usable, published=PUBLISHED),
    ten_frames("co3d", "CO3Dv2 (Pi3)", "pi3", group_of=category),
    ten_frames("co3d", "CO3Dv2 (Fast3R)", "fast3r", group_of=category),
)
