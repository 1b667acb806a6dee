"""DTU: pointmaps of objects on a table, 22 scans, every 5th of 49 views; millimetres."""

from distill3d.data.rows import ManifestRow
from distill3d.eval.benchmark import Published
from distill3d.eval.benchmarks._per_view import per_view
from distill3d.eval.benchmarks._pointmaps import fast3r, pi3

SCANS = (1, 4, 9, 10, 11, 12, 13, 15, 23, 24, 29, 32, 33, 34, 48, 49, 62, 75, 77, 110, 114, 118)
MILLIMETRES = 1000.0


def choose(scenes: dict[str, tuple[ManifestRow, ...]]) -> dict[str, tuple[ManifestRow, ...]]:
    """The 22 scans."""
    names = {f"scan{number}" for number in SCANS}
    return {scene: rows for scene, rows in scenes.items() if scene in names}


_SOURCE = "Distill3R, Tables II and III; its two rows for the full model disagree, and its units are not stated"
PUBLISHED = tuple(
    Published(method=method, values=dict(zip(("accuracy", "completeness", "scale"), row, strict=True)), source=_SOURCE)
    for method, row in (
        ("Fast3R", (0.31, 0.41, 942.49)),
        ("Distill3R (Table II)", (1.16, 1.77, 394.59)),
        ("labels only", (1.37, 2.09, 409.05)),
        ("without weighting", (1.42, 1.88, 467.85)),
        ("full (Table III)", (1.25, 1.54, 380.30)),
    )
)

BENCHMARKS = (
    pi3("dtu", "DTU (Pi3)", suffix="", stride=5, choose=choose, unit=MILLIMETRES, icp_limit=100.0),
    fast3r("dtu", "DTU (Fast3R)", stride=5, choose=choose, unit=MILLIMETRES),
    per_view(
        "dtu",
        "DTU, view by view (Distill3R)",
        stride=5,
        choose=choose,
        scale_unit=MILLIMETRES,
        published=PUBLISHED,
    ),
)
