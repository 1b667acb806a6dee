"""DTU's own evaluation (Aanaes et al., 2016), as DUSt3R and VGGT report it: distances to the scanner's points, in mm.

The reference lies in the official `SampleSet`, beside the scans or in a folder of that name:

Points/stl/stl001_total.ply                the scanner's points
ObsMask/ObsMask1_10.mat  ObsMask/Plane1.mat  the space that it saw, and the table

A reconstruction of all 49 views is thinned out to 0.2 mm; its points in the observed space are measured to the scan
(accuracy), the scan's points above the table to it (completeness); distances of 20 mm and more do not count.

How a reconstruction without cameras comes into the scan's frame is published nowhere. We take Umeyama's similarity over
all pixels with a known depth (in the layout of MVSNet, as `dtu`), and then every predicted point, with no filter.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill3d.data.listing import read_part
from distill3d.data.ply import read_ply_points
from distill3d.errors import DataError
from distill3d.eval.benchmark import Benchmark, Mode, Published, Sample, SampleScores, Scene
from distill3d.eval.benchmarks._clouds import truth_points
from distill3d.eval.benchmarks._sequences import listed, needs, one_per_scene, sequences
from distill3d.eval.benchmarks.dtu import MILLIMETRES, choose
from distill3d.eval.frames import finished, load_views
from distill3d.eval.inputs import resize_views
from distill3d.eval.metrics.observed import LIMIT_MM, SPACING_MM, ObservedScan, observed_scores
from distill3d.eval.metrics.points import fit_similarity
from distill3d.eval.scores import Column
from distill3d.types import Prediction

_PLACES = ("", "SampleSet/MVS Data", "MVS Data", "SampleSet")
COLUMNS: Mapping[str, Column] = {
    "accuracy": Column(label="accuracy", unit="mean, mm", better="lower"),
    "completeness": Column(label="completeness", unit="mean, mm", better="lower"),
    "overall": Column(label="overall", unit="mm", better="lower"),
    "accuracy_median": Column(label="accuracy", unit="median, mm", better="lower"),
    "completeness_median": Column(label="completeness", unit="median, mm", better="lower"),
}
PUBLISHED = (
    Published(
        method="VGGT",
        values={"accuracy": 0.389, "completeness": 0.374, "overall": 0.382},
        source="to be verified: VGGT's paper, whose alignment and filter are not published",
    ),
    Published(
        method="VGGT, by users",
        values={"accuracy": 1.46, "completeness": 0.58, "overall": 1.02},
        source="facebookresearch/vggt issue 349, whose settings may differ from these",
    ),
)


def list_samples(root: Path | None, limit: int | None) -> Sequence[Sample]:
    """The 22 scans, all views."""
    folder = needs(root)
    scenes = {scene: listed(rows, folder, 1) for scene, rows in choose(sequences("dtu", folder)).items()}
    if not scenes:
        raise DataError(f"{folder} holds none of the 22 scans of DTU's evaluation.")
    return one_per_scene(scenes)[:limit]


def load(sample: Sample, root: Path | None, mode: Mode) -> Scene:
    """Read the views of a scan, and what the scanner saw."""
    found = re.search(r"(\d+)$", sample.key)
    assert found is not None
    scan = read_scan(needs(root), int(found[1]))
    extra = {name: np.asarray(value) for name, value in vars(scan).items()}
    return Scene(views=load_views(sample.rows, needs(root)), extra=extra)


def read_scan(root: Path, number: int) -> ObservedScan:
    """Read the reference of one scan.

    Raises:
        DataError: a file is missing or damaged.
    """
    folder = next((root / place for place in _PLACES if (root / place / "ObsMask").is_dir()), None)
    if folder is None:
        raise DataError(
            f"{root} has no folder ObsMask, neither itself nor in SampleSet/MVS Data. Put the official SampleSet and "
            "Points of DTU beside the scans."
        )
    scanned = folder / f"Points/stl/stl{number:03d}_total.ply"
    if not scanned.is_file():
        raise DataError(f"There are no scanned points at {scanned}. Put the official Points of DTU there.")
    points = read_ply_points(scanned)
    space = read_part("observed space", folder / f"ObsMask/ObsMask{number}_10.mat", _read_matlab)
    table = read_part("plane of the table", folder / f"ObsMask/Plane{number}.mat", _read_matlab)
    try:
        box = np.asarray(space["BB"], dtype=np.float64).reshape(2, 3)
        return ObservedScan(
            points=points,
            observed=np.asarray(space["ObsMask"]) > 0,
            low=box[0],
            cell=float(np.asarray(space["Res"]).item()),
            plane=np.asarray(table["P"], dtype=np.float64).reshape(4),
        )
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{folder / 'ObsMask'} holds other things than expected for scan {number} ({error})."
        ) from error


def _read_matlab(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # slow to import
    from scipy.io.matlab import MatReadError

    try:
        return dict(loadmat(path))
    except (MatReadError, NotImplementedError) as error:
        raise ValueError(str(error)) from error


def score(prediction: Prediction, scene: Scene, sample: Sample, mode: Mode) -> SampleScores:
    """Bring the common map to the scan and measure it."""
    world = finished(prediction).pointmap_world
    if world is None:
        return SampleScores(values=dict.fromkeys(COLUMNS, float("nan")))
    truth, valid = truth_points(resize_views(scene.views, (world.shape[2], world.shape[3])), MILLIMETRES)
    predicted = world[0].double().cpu().numpy()
    known = np.isfinite(predicted).all(axis=-1)
    if not (known & valid).any():
        return SampleScores(values=dict.fromkeys(COLUMNS, float("nan")))
    fit = fit_similarity(predicted[known & valid], truth[known & valid])
    extra: dict[str, Any] = dict(scene.extra)
    scan = ObservedScan(**extra | {"cell": float(extra["cell"])})
    found = observed_scores(fit.apply(torch.from_numpy(predicted[known])).numpy(), scan)
    return SampleScores(values={name: float(getattr(found, name)) for name in COLUMNS})


BENCHMARKS = (
    Benchmark(
        name="dtu-official",
        title="DTU, its own evaluation",
        protocol="recon.dtu-official.v1",
        dataset="dtu",
        columns=COLUMNS,
        list_samples=list_samples,
        load=load,
        score=score,
        published=PUBLISHED,
        alignment=f"Umeyama over all pixels with depth; thinned to {SPACING_MM:g} mm, distances below {LIMIT_MM:g} mm",
    ),
)
