import json
import math

import pytest
import torch

from distill3d.errors import ConfigError, DataError
from distill3d.eval.benchmark import Benchmark, Published, Sample, SampleScores, Scene
from distill3d.eval.results import aggregate, latex, load_result, markdown, merge_results
from distill3d.eval.run import Method
from distill3d.eval.scores import Column
from distill3d.eval.suite import PREDICTIONS, SCORES, Plan, run_benchmark
from distill3d.types import Prediction, Views

COLUMNS = {
    "error": Column(label="error", unit="m", better="lower"),
    "share": Column(label="share_ok", unit="%", better="higher", digits=1),
    "pooled": Column(label="pooled", unit="", better="lower"),
}


def load(sample, root, mode):
    if sample.key == "broken":
        raise DataError("photo 3 is damaged")
    return Scene(views=Views(images=torch.full((1, 2, 3, 20, 30), sample.notes["value"])))


def score(prediction, scene, sample, mode):
    value = float(prediction.depth.mean())
    return SampleScores(
        values={"error": value, "share": math.nan if sample.key == "b" else 50.0},
        lists={"list": (value, value + 1)},
        weight=1.0 if sample.key == "a" else 3.0,
    )


def benchmark(**changes):
    settings = {
        "name": "toy",
        "title": "A toy",
        "protocol": "toy.v1",
        "columns": COLUMNS,
        "list_samples": lambda root, limit: [
            Sample(key=key, group=group, notes={"value": value})
            for key, group, value in (("a", "x", 0.25), ("broken", "x", 0.0), ("b", "y", 0.75), ("c", "y", 0.5))
        ][:limit],
        "load": load,
        "score": score,
        "pooled": lambda lists: {"pooled": float(lists["list"].max())},
        "published": (
            Published(method="Them & co", values={"error": 0.1}, source="their Table 1", groups={"y": {"error": 0.2}}),
        ),
    }
    return Benchmark(**{**settings, **changes})


def look(views):
    """Says how bright the photos are, at their own size."""
    return Prediction(depth=views.images.mean(dim=2))


def run(folder, made=None, **changes):
    return run_benchmark(
        Plan(benchmark=benchmark(**changes), root=None, folder=folder, long_side=14, multiple=7),
        made or {"ours": Method(predict=look, settings={"hash": "a"})},
    )


def test_averages_leave_out_nan_and_count_it(tmp_path):
    result = run(tmp_path)
    method = result.methods["ours"]
    assert method.values["error"] == pytest.approx((0.25 + 0.75 + 0.5) / 3)
    assert method.values["share"] == 50
    assert method.num_nan == {"error": 0, "share": 1}
    assert method.values["pooled"] == pytest.approx(1.75)
    assert result.skipped == {"broken": "photo 3 is damaged"}
    assert method.groups["y"]["error"] == pytest.approx(0.625)
    assert run(tmp_path, average="weighted").methods["ours"].values["error"] == pytest.approx((0.25 + 2.25 + 1.5) / 7)
    assert run(tmp_path, average="groups").methods["ours"].values["error"] == pytest.approx((0.25 + 0.625) / 2)


def test_two_runs_give_the_same_bytes_and_results_are_read_back(tmp_path):
    first = run(tmp_path / "a")
    run(tmp_path / "b")
    assert (tmp_path / "a" / SCORES).read_bytes() == (tmp_path / "b" / SCORES).read_bytes()
    again = load_result(tmp_path / "a" / SCORES)
    assert again.rows() == first.rows()
    assert markdown(again, benchmark()) == markdown(first, benchmark())
    (tmp_path / "a" / SCORES).write_text(json.dumps({"format": 99}))
    with pytest.raises(DataError, match="format 99"):
        load_result(tmp_path / "a" / SCORES)


def test_a_second_call_asks_nobody_again_and_mends_what_was_broken(tmp_path):
    asked = []

    def watched(views):
        asked.append(tuple(views.images.shape))
        return look(views)

    methods = {"ours": Method(predict=watched)}
    run(tmp_path, methods)
    # Photos come in whole patches, the longer side as asked.
    assert asked == [(1, 2, 3, 7, 14)] * 3
    run(tmp_path, methods)
    assert len(asked) == 3
    repaired = run(
        tmp_path, methods, load=lambda sample, root, mode: load(Sample(key="fine", notes=sample.notes), root, mode)
    )
    assert len(asked) == 4
    assert repaired.skipped == {}


def test_predictions_of_other_weights_sizes_or_samples_are_not_mixed(tmp_path):
    run(tmp_path)
    with pytest.raises(ConfigError, match=r"method.hash: a there, b now"):
        run(tmp_path, {"ours": Method(predict=look, settings={"hash": "b"})})
    with pytest.raises(ConfigError, match="num_samples"):
        run_benchmark(
            Plan(benchmark=benchmark(), root=None, folder=tmp_path, long_side=14, multiple=7, limit=2),
            {"ours": Method(predict=look, settings={"hash": "a"})},
        )
    with pytest.raises(ConfigError, match="long_side"):
        run_benchmark(
            Plan(benchmark=benchmark(), root=None, folder=tmp_path, long_side=21, multiple=7),
            {"ours": Method(predict=look, settings={"hash": "a"})},
        )


def test_processes_share_the_samples_and_the_last_one_scores(tmp_path, monkeypatch):
    seen = []

    def watched(views):
        seen.append(float(views.images.mean()))
        return look(views)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run(tmp_path, {"ours": Method(predict=watched)}) is None
    assert seen == [0.25, 0.75]
    assert not (tmp_path / SCORES).exists()
    monkeypatch.setenv("RANK", "1")
    result = run(tmp_path, {"ours": Method(predict=watched)})
    assert seen == [0.25, 0.75, 0.5]
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    alone = run(tmp_path / "alone", {"ours": Method(predict=watched)})
    assert result.rows() == alone.rows()
    assert (tmp_path / SCORES).read_bytes() == (tmp_path / "alone" / SCORES).read_bytes()


def test_another_model_in_the_same_folder_gets_a_row_of_its_own(tmp_path):
    run(tmp_path)
    both = run(tmp_path, {"theirs": Method(predict=look)})
    assert list(both.methods) == ["ours", "theirs"]
    assert list(run(tmp_path).methods) == ["theirs", "ours"]
    with pytest.raises(ConfigError, match="two tables"):
        run(tmp_path, {"third": Method(predict=look)}, protocol="toy.v2")


def test_a_quick_look_scores_some_pixels_and_has_another_name(tmp_path):
    depth = torch.ones(1, 2, 20, 30)
    depth[:, 0] = 0

    def shown(sample, root, mode):
        return Scene(views=Views(images=torch.zeros(1, 2, 3, 20, 30), depth=depth))

    plan = Plan(benchmark=benchmark(load=shown), root=None, folder=tmp_path, max_points=50)
    assert plan.protocol() == "toy.v1+points50"
    thinned = plan.load(plan.samples()[0]).views.depth
    assert int((thinned > 0).sum()) == 50
    assert int((thinned[:, 0] > 0).sum()) == 0
    whole = Plan(benchmark=benchmark(load=shown), root=None, folder=tmp_path)
    assert torch.equal(whole.load(whole.samples()[0]).views.depth, depth)


def test_views_are_shown_one_by_one_where_the_protocol_says_so(tmp_path):
    asked = []

    def watched(views):
        asked.append(views.images.shape[1])
        return look(views)

    run(tmp_path, {"ours": Method(predict=watched)}, views_per_call="one")
    assert set(asked) == {1}
    assert len(list((tmp_path / PREDICTIONS / "ours").glob("*.safetensors"))) == 3


def test_nothing_to_score_is_said_in_words(tmp_path):
    with pytest.raises(DataError, match="photo 3 is damaged"):
        run(tmp_path, list_samples=lambda root, limit: [Sample(key="broken", notes={"value": 0.0})])
    with pytest.raises(DataError, match="no sample"):
        run(tmp_path / "b", list_samples=lambda root, limit: [])


def test_tables_show_published_rows_beside_ours(tmp_path):
    result = run(tmp_path)
    table = markdown(result, benchmark())
    assert "| *Them & co, published* | 0.100 | - | - |" in table
    assert "| y: *Them & co, published* | 0.200 | - | - |" in table
    assert "Protocol toy.v1, 4 samples" in table
    assert "1 samples were not scored (photo 3 is damaged)" in table
    tex = latex(result, benchmark())
    assert r"\textit{Them \& co (published)} & 0.100 & - & - \\" in tex
    assert r"share\_ok (\%) $\uparrow$" in tex
    assert tex.count("{") == tex.count("}")


def test_results_of_two_modes_or_sample_lists_are_not_merged(tmp_path):
    ours = run(tmp_path / "a")
    theirs = run(tmp_path / "b", {"theirs": Method(predict=look)})
    assert list(merge_results({"a": ours, "b": theirs}).methods) == ["ours", "theirs"]
    with pytest.raises(ConfigError, match="both have ours"):
        merge_results({"a": ours, "b": ours})
    quirky = benchmark(compat_differs="a quirk")
    clean, compat = (
        run_benchmark(
            Plan(benchmark=quirky, root=None, folder=tmp_path / mode, mode=mode, long_side=14, multiple=7),
            {mode: Method(predict=look)},
        )
        for mode in ("clean", "compat")
    )
    with pytest.raises(ConfigError, match="differ in protocol"):
        merge_results({"clean": clean, "compat": compat})


def test_an_average_of_nothing_is_nan():
    method = aggregate(benchmark(pooled=None), {"a": SampleScores(values={"error": math.nan})}, {"a": ""}, {})
    assert math.isnan(method.values["error"])
    assert method.num_nan == {"error": 1}
