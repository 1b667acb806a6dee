import json
import math

import pytest
import torch

from distill3d.errors import DataError
from distill3d.eval import benchmark as registry
from distill3d.eval.benchmark import Scene
from distill3d.eval.benchmarks._sequences import ANY_LAYOUT
from distill3d.eval.benchmarks.robustmvd import quasi_optimal, score_key
from distill3d.eval.run import Method
from distill3d.eval.suite import Plan, run_benchmark
from distill3d.types import Prediction, Views
from distill3d.viewer.benchmark import benchmark_report
from tests.eval.benchmarks.trees import write_tree
from tests.fixtures.layouts import write_layout


def scene(views=4):
    depth = torch.rand(1, views, 12, 16, generator=torch.Generator().manual_seed(0)) + 1
    return Scene(views=Views(images=torch.zeros(1, views, 3, 12, 16), depth=depth))


def test_the_best_choice_of_sources_is_found():
    looked_at = []

    def predict(views):
        """The fewer harmful sources (1) and the more helpful ones (2, 3), the better."""
        looked_at.append(list(views))
        error = 0.2 + 0.5 * (1 in views) - 0.05 * (2 in views) - 0.1 * (3 in views)
        return Prediction(depth=scene().views.depth[:, : len(views)] * (1 + error))

    prediction, views = quasi_optimal(predict, scene(), "none")
    assert looked_at[:3] == [[0, 1], [0, 2], [0, 3]]
    assert views == [0, 3, 2]
    assert score_key(prediction, scene(), "none").values["absrel"] == pytest.approx(5, abs=0.01)
    with pytest.raises(DataError, match="without sources"):
        quasi_optimal(predict, scene(1), "none")


def test_the_choice_is_part_of_the_protocol_and_of_the_stored_prediction(tmp_path):
    root = write_layout("dtu", tmp_path / "dtu").root
    seen = []

    def predict(views):
        """Right with the third source alone, as far as a network without truth can be."""
        seen.append(views.images.shape[1])
        depth = torch.full((1, views.images.shape[1], *views.images.shape[-2:]), 0.6)
        return Prediction(depth=depth)

    plan = Plan(benchmark=registry.get("robustmvd-dtu-median-quasi"), root=root, folder=tmp_path / "out", limit=1)
    assert plan.protocol() == "mvd.dtu.quasi.median.v1"
    result = run_benchmark(plan, {"flat": Method(predict=predict)})
    assert seen == [2] * 5 + [2, 3, 4, 5, 6]  # the key with each source alone, then with more and more of them
    assert result is not None
    assert math.isfinite(result.methods["flat"].values["absrel"])
    run_benchmark(plan, {"flat": Method(predict=predict)})
    assert len(seen) == 10  # the answer of the best choice was stored
    assert len(benchmark_report(result, plan).views) == 1  # the key; the others are not known any more


def test_the_mean_is_over_the_sets_that_are_there(tmp_path, caplog):
    """Each set counts once, however many samples it has."""
    benchmark = registry.get("robustmvd-none")
    with pytest.raises(DataError, match="none of the folders kitti, scannet, eth3d, dtu, tanks"):
        benchmark.list_samples(tmp_path, None)
    write_tree("scannet1500", tmp_path / "scannet")  # several scans
    write_tree(ANY_LAYOUT, tmp_path / "tanks")  # one scene
    samples = benchmark.list_samples(tmp_path, None)
    assert "no kitti, eth3d, dtu: the mean is over scannet, tanks" in caplog.text
    assert [sample.group for sample in samples].count("scannet") > 1

    def predict(views):
        """Right about ScanNet, and half of everything in the other."""
        assert views.depth is not None
        factor = 1.0 if views.depth.shape[-2:] == (480, 640) else 0.5
        return Prediction(depth=factor * views.depth)

    plan = Plan(benchmark=benchmark, root=tmp_path, folder=tmp_path / "out")
    result = run_benchmark(plan, {"half": Method(predict=predict, sees_truth=True)})
    assert result is not None
    found = result.methods["half"]
    assert {name: values["absrel"] for name, values in found.groups.items()} == pytest.approx(
        {"scannet": 0.0, "tanks": 50.0}, abs=1e-4
    )
    assert found.values["absrel"] == pytest.approx(25, abs=1e-4)


def test_scannet_is_scored_at_the_size_of_its_depth(tmp_path):
    root = write_tree("scannet1500", tmp_path)
    benchmark = registry.get("robustmvd-scannet-none")
    scene = benchmark.load(benchmark.list_samples(root, 1)[0], root, "clean")
    assert scene.views.images.shape[-2:] == (480, 640)
    assert scene.views.depth.shape[-2:] == (480, 640)


def test_a_list_of_samples_beside_the_data_goes_before_our_own(tmp_path):
    root = write_layout("dtu", tmp_path).root
    benchmark = registry.get("robustmvd-dtu-median")
    assert [row.frame for row in benchmark.list_samples(root, None)[0].rows] == [3, 2, 4, 1, 5, 0]
    (root / "samples.json").write_text(json.dumps([{"scene": "scan1", "key": 0, "sources": [5, 2]}]))
    assert [row.frame for row in benchmark.list_samples(root, None)[0].rows] == [0, 5, 2]
    (root / "samples.json").write_text(json.dumps([{"scene": "scan1", "key": 9, "sources": []}]))
    with pytest.raises(DataError, match=r"no frames \[9\]"):
        benchmark.list_samples(root, None)
    entry = {"scene": "scan1", "key": 0, "sources": [5]}
    (root / "samples.json").write_text(json.dumps([entry, {**entry, "sources": [2]}]))
    with pytest.raises(DataError, match="names a key view twice: scan1-0"):
        benchmark.list_samples(root, None)
    (root / "samples.json").write_text("[1]")
    with pytest.raises(DataError, match="not a list of samples"):
        benchmark.list_samples(root, None)
