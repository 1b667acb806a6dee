"""NRGBD: pointmaps of nine synthetic rooms.

Every 500th frame (sparse) or 100th (dense) after Pi3, every 500th after CUT3R, every 40th after Fast3R.
"""

from distill3d.data.rows import ManifestRow
from distill3d.eval.benchmarks._pointmaps import cut3r, fast3r, pi3


def choose(scenes: dict[str, tuple[ManifestRow, ...]]) -> dict[str, tuple[ManifestRow, ...]]:
    """All of them."""
    return scenes


BENCHMARKS = (
    pi3("nrgbd", "NRGBD, sparse (Pi3)", suffix="", stride=500, choose=choose),
    pi3("nrgbd", "NRGBD, dense (Pi3)", suffix="-dense", stride=100, choose=choose),
    cut3r("nrgbd", "NRGBD (CUT3R, Spann3R)", stride=500, choose=choose),
    fast3r("nrgbd", "NRGBD (Fast3R)", stride=40, choose=choose),
)
