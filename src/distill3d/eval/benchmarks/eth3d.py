"""ETH3D: pointmaps of 13 scenes, every 5th photo after Pi3; undistorted photos, metres."""

from distill3d.data.rows import ManifestRow
from distill3d.eval.benchmarks._pointmaps import pi3

SCENES = (
    "courtyard", "delivery_area", "electro", "facade", "kicker", "meadow", "office", "pipes", "playground", "relief",
    "relief_2", "terrace", "terrains",
)  # fmt: skip


def choose(scenes: dict[str, tuple[ManifestRow, ...]]) -> dict[str, tuple[ManifestRow, ...]]:
    """The 13 scenes, undistorted."""
    return {
        scene: rows
        for scene, rows in scenes.items()
        if scene.split("/")[-1] in SCENES and all(row.distortion is None for row in rows)
    }


BENCHMARKS = (pi3("eth3d", "ETH3D (Pi3)", suffix="", stride=5, choose=choose),)
