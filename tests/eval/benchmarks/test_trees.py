"""Every benchmark on the tiny tree of its data set: a perfect prediction scores perfectly, a silent one gives NaN."""

import math

import pytest
import torch

from distill3d.errors import ConfigError, DataError
from distill3d.eval import benchmark as registry
from distill3d.eval.benchmarks import _pointmaps, co3d, monocular
from distill3d.eval.run import Method
from distill3d.eval.suite import Plan, run_benchmark
from distill3d.types import Prediction
from distill3d.viewer.benchmark import benchmark_report
from tests.eval.benchmarks.trees import write_tree
from tests.eval.perfect import BROKEN, PERFECT

NAMES = [name for name in registry.names() if registry.get(name).dataset is not None]
WORST = {"higher": 0.98, "lower": 2e-3}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Root of a data set's tiny tree, written once."""
    made = {}

    def tree(dataset):
        if dataset not in made:
            made[dataset] = write_tree(dataset, tmp_path_factory.mktemp(dataset.replace(" ", "-")))
        return made[dataset]

    return tree


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Sizes of the protocols would make each of these tests take seconds."""
    monkeypatch.setattr("distill3d.eval.inputs.PI3_WIDTH", 84)
    monkeypatch.setattr(_pointmaps, "_FAST3R_WIDTH", 80)
    monkeypatch.setattr(_pointmaps, "_CUT3R_SIZE", (60, 80))
    monkeypatch.setattr(_pointmaps, "_CUT3R_CROP", 40)
    monkeypatch.setattr(co3d, "LEAST_FRAMES", 2)
    for name in monocular.SETS:
        monkeypatch.setattr(monocular.SETS[name], "size", (36, 48))


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_prediction_scores_perfectly(name, trees, tmp_path):
    benchmark = registry.get(name)
    plan = Plan(benchmark=benchmark, root=trees(benchmark.dataset), folder=tmp_path, limit=2)
    silent = Method(predict=lambda views: Prediction(confidence_depth=torch.ones(views.images[:, :, 0].shape)))
    result = run_benchmark(plan, {"perfect": PERFECT, "silent": silent})
    assert result is not None
    assert result.methods["perfect"].samples
    values = result.methods["perfect"].values
    assert any(not math.isnan(value) for value in values.values())
    for metric, value in values.items():
        # The scale of a metric prediction is 1 (1000 in millimetres); a flat corner has few edges to be right about.
        if math.isnan(value) or metric.startswith(("scale", "boundary", "ause")):
            continue
        column = benchmark.columns[metric]
        good = column.better == "higher"
        full = 100 if column.unit == "%" else 1
        assert value >= WORST["higher"] * full if good else value <= WORST["lower"] * full, metric
    for metric, value in result.methods["silent"].values.items():
        failed = 0 if benchmark.columns[metric].better == "higher" else math.inf
        assert math.isnan(value) or value == failed or metric == "failed", metric


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("-quasi")])
def test_a_broken_prediction_neither_stops_an_evaluation_nor_passes_for_a_good_one(name, trees, tmp_path):
    benchmark = registry.get(name)
    plan = Plan(benchmark=benchmark, root=trees(benchmark.dataset), folder=tmp_path, limit=1)
    result = run_benchmark(plan, {"perfect": PERFECT, **BROKEN})
    assert result is not None
    found = {method: result.methods[method].values for method in result.methods}
    for metric, column in benchmark.columns.items():
        best = found["perfect"][metric]
        for method in BROKEN:
            value, sign = found[method][metric], 1 if column.better == "higher" else -1
            # The scale of a metric prediction is 1 (1000 in millimetres): it has no better side.
            if not metric.startswith("scale"):
                assert math.isnan(value) or math.isnan(best) or sign * value <= sign * best + 1e-4, (method, metric)
    assert benchmark_report(result, plan, num_samples=1).tables
    whole = {"completeness", "inliers103"} & {*benchmark.columns}
    for metric in whole:  # of what a method is silent about, the truth is not forgotten
        best, half = found["perfect"][metric], found["half"][metric]
        assert half < 0.9 * best if benchmark.columns[metric].better == "higher" else half > best + 1e-3, metric
        assert math.isnan(found["nan"][metric])


@pytest.mark.parametrize("name", ["sevenscenes", "nrgbd-fast3r", "video-sintel-scale-shift", "re10k-fast3r"])
def test_the_two_modes_have_different_names_and_folders_do_not_mix_them(name, trees, tmp_path):
    benchmark = registry.get(name)
    assert benchmark.identity("clean") != benchmark.identity("compat")
    root = trees(benchmark.dataset)
    clean = run_benchmark(Plan(benchmark=benchmark, root=root, folder=tmp_path, limit=1), {"perfect": PERFECT})
    compat = Plan(benchmark=benchmark, root=root, folder=tmp_path, limit=1, mode="compat")
    with pytest.raises(ConfigError, match="protocol"):
        run_benchmark(compat, {"perfect": PERFECT})
    assert clean is not None
    assert clean.protocol.endswith("+clean")


def test_a_protocol_without_quirks_has_one_mode():
    with pytest.raises(ConfigError, match="no quirks"):
        registry.get("scannet1500").identity("compat")


def test_an_unknown_benchmark_and_a_folder_without_data_are_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match="choose one of: co3d"):
        registry.get("imagenet")
    with pytest.raises(ConfigError, match="choose one of: sevenscenes-dense, or one that --benchmark list"):
        registry.get("7scenes-dense")
    with pytest.raises(ConfigError, match="choose one of: video-bonn-median, "):
        registry.get("video-bonn")
    for root in (tmp_path, tmp_path / "absent", None):
        plan = Plan(benchmark=registry.get("sevenscenes"), root=root, folder=tmp_path / "out")
        with pytest.raises(DataError):
            run_benchmark(plan, {"perfect": PERFECT})


def test_a_frame_list_beside_the_data_goes_before_the_stride(trees, tmp_path):
    from distill3d.eval.benchmarks._sequences import listed, sequences

    root = trees("nrgbd")
    rows = sequences("nrgbd", root)["breakfast_room"]
    (tmp_path / "frames.json").write_text('{"breakfast_room": [0, 3]}')
    assert [row.frame for row in listed(rows, tmp_path, 5)] == [0, 3]
    assert [row.frame for row in listed(rows, root, 5)] == [0, 6]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "frames.json").write_text('{"breakfast_room": [4]}')
    with pytest.raises(DataError, match=r"names frames \[4\]"):
        listed(rows, tmp_path / "other", 5)
