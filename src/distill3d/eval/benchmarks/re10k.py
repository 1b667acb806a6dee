"""RealEstate10K: poses of ten frames of a clip. Several source videos are gone: other subsets are not comparable."""

from distill3d.eval.benchmark import Published
from distill3d.eval.benchmarks._unordered import ten_frames

PUBLISHED = (
    Published(
        method="VGGT",
        values={"auc_30": 85.3},
        source="to be verified: VGGT's paper; Pi3's frame lists give it 77.62, and users do not reproduce it",
    ),
)

BENCHMARKS = (
    ten_frames("re10k", "RealEstate10K (Pi3)", "pi3", group_of=lambda scene: "re10k", published=PUBLISHED),
    ten_frames("re10k", "RealEstate10K (Fast3R)", "fast3r", group_of=lambda scene: "re10k"),
)
