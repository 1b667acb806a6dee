"""7-Scenes: pointmaps under three settings, and the Distill3R paper's view-by-view evaluation.

The 18 test sequences; every 200th frame (sparse) or 40th (dense) after Pi3, every 200th after CUT3R, every 20th after
Fast3R. `compat` takes the pose of the infrared camera for that of the colour camera, as published evaluations do.
"""

from collections.abc import Sequence
from dataclasses import replace

from distill3d.data.datasets.sevenscenes import infrared_pose
from distill3d.data.rows import ManifestRow
from distill3d.eval.benchmark import Mode, Published
from distill3d.eval.benchmarks._per_view import per_view
from distill3d.eval.benchmarks._pointmaps import cut3r, fast3r, pi3

TEST_SEQUENCES = {
    "chess": (3, 5), "fire": (3, 4), "heads": (1,), "office": (2, 6, 7, 9), "pumpkin": (1, 7),
    "redkitchen": (3, 4, 6, 12, 14), "stairs": (1, 4),
}  # fmt: skip
QUIRK = "the pose of the infrared camera is taken for that of the colour camera, 2.6 cm beside it"


def choose(scenes: dict[str, tuple[ManifestRow, ...]]) -> dict[str, tuple[ManifestRow, ...]]:
    """Sequences that the data's own lists call test; where there are no lists, those of the protocol."""
    by_split = {scene: rows for scene, rows in scenes.items() if rows[0].split == "test"}
    if by_split or any(rows[0].split for rows in scenes.values()):
        return by_split
    names = {f"{room}/seq-{number:02d}" for room, numbers in TEST_SEQUENCES.items() for number in numbers}
    return {scene: rows for scene, rows in scenes.items() if scene in names}


def prepare(rows: Sequence[ManifestRow], mode: Mode) -> Sequence[ManifestRow]:
    """Take the poses as the files or as the colour camera has them."""
    if mode == "clean":
        return rows
    return [
        replace(row, world_from_camera=infrared_pose(row.world_from_camera)) if row.world_from_camera else row
        for row in rows
    ]


_SOURCE = "Distill3R, Tables II and III; frames, alignment and averages are not published, so agreement is unknown"
PUBLISHED = (
    Published(method="Fast3R", values={"accuracy": 2.45, "completeness": 2.97, "scale": 3.54}, source=_SOURCE),
    Published(method="Distill3R", values={"accuracy": 8.76, "completeness": 8.88, "scale": 1.62}, source=_SOURCE),
)

BENCHMARKS = (
    pi3("sevenscenes", "7-Scenes, sparse (Pi3)", suffix="", stride=200, choose=choose, prepare=prepare, quirks=QUIRK),
    pi3(
        "sevenscenes", "7-Scenes, dense (Pi3)", suffix="-dense", stride=40, choose=choose, prepare=prepare, quirks=QUIRK
    ),
    cut3r("sevenscenes", "7-Scenes (CUT3R, Spann3R)", stride=200, choose=choose, prepare=prepare, quirks=QUIRK),
    fast3r("sevenscenes", "7-Scenes (Fast3R)", stride=20, choose=choose, prepare=prepare, quirks=QUIRK),
    per_view("sevenscenes", "7-Scenes, view by view (Distill3R)", stride=200, choose=choose, published=PUBLISHED),
)
