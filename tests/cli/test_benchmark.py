import json

import pytest

from tests.cli.calls import call, succeed


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """The shipped network on three rendered scenes, one of each kind."""
    out = tmp_path_factory.mktemp("synthetic") / "e"
    return out, succeed("evaluate", "--benchmark", "synthetic", "--limit", 3, "--out", out)


def test_the_synthetic_benchmark_needs_neither_data_nor_a_model(synthetic):
    out, said = synthetic
    assert said["order"] == ["place", "mean pointmap", "constant depth", "truth itself"]
    assert said["protocol"] == "synthetic.v1"
    assert said["settings"]["num_samples"] == 3
    assert said["scores"]["place"]["depth_rel"] > 0
    assert said["scores"]["truth itself"]["depth_rel"] < 1e-4
    assert said["scores"]["place"]["ause"] is not None
    stored = json.loads((out / "scores.json").read_text())
    assert stored["methods"]["place"]["settings"]["weights_sha256"]
    assert "scores.tex" in said["files"]["latex"]


def test_the_report_shows_scores_maps_a_cloud_and_curves(synthetic):
    page = (synthetic[0] / "report.html").read_text()
    for heading in ("Point cloud", "Scores", "Views", "Curves", "each by itself", "Does confidence rank error?"):
        assert heading in page, heading
    assert "Rotation of pairs" in page


def test_all_benchmarks_are_listed():
    listed = succeed("evaluate", "--benchmark", "list")["benchmarks"]
    assert listed["sevenscenes"]["modes"] == ["clean", "compat"]
    assert listed["scannet1500"]["modes"] == ["clean"]
    assert "efficiency" in call("evaluate", "--benchmark", "list").out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--benchmark", "imagenet"), "choose one of"),
        (("--benchmark", "scannet1500"), "give the folder with --data"),
        (("--benchmark", "scannet1500", "--compat", "--data", "."), "leave out --compat"),
        (("--benchmark", "synthetic", "--limit", "0"), "expected 1 or more"),
        (("--benchmark", "synthetic", "--model", "runs/absent"), "no run folder or weight file"),
        (("--benchmark", "efficiency", "--model", "distill3r", "--limit", "3"), "fewest views are 12"),
        ((), "--benchmark synthetic needs nothing else"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_words(options, words):
    called = call("evaluate", *options)
    assert called.code == 2
    assert words in called.err


def test_a_folder_that_is_no_data_set_is_named(tmp_path):
    called = call("evaluate", "--benchmark", "sevenscenes", "--data", tmp_path, "--out", tmp_path / "o")
    assert called.code == 2
    assert "no usable frame of 7-Scenes" in called.err


def test_costs_are_measured_beside_the_published_ones(tmp_path):
    options = (
        "--benchmark",
        "efficiency",
        "--model",
        "distill3r",
        "--variant",
        "tiny",
        "--limit",
        12,
        "--long-side",
        56,
    )
    said = succeed("evaluate", *options, "--out", tmp_path)
    assert [cost["num_views"] for cost in said["costs"]] == [12]
    assert said["protocol"] == "efficiency.distill3r.v1"
    assert (tmp_path / "efficiency.json").is_file()


def test_the_norm_of_the_features_is_printed():
    said = succeed("evaluate", "--benchmark", "feature-norm", "--model", "place")
    assert said["feature_norm"] > 0
    assert said["protocol"] == "feature-norm.fin3r.v1"
    assert said["photos"] == 12
