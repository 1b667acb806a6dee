import json

import pytest

from distill3d.eval.run import Method, evaluate, load_evaluation
from distill3d.viewer.assemble import assemble_report, curve_panels, run_facts, score_table
from tests.eval.annotated import FIT, GROUPS, exact, write_scenes

KNOWN = GROUPS[:2]


@pytest.fixture
def manifest(tmp_path):
    return write_scenes(tmp_path / "scenes")


@pytest.fixture
def scores(tmp_path, manifest):
    methods = {"student": Method(predict=exact), "teacher": Method(predict=exact)}
    return evaluate(methods, manifest, KNOWN, FIT, tmp_path / "evaluation", train_groups=KNOWN)


@pytest.fixture
def run(tmp_path):
    """What training leaves behind, before it is finished."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = {
        "settings": {"student": "distill3r", "variant": "demo", "optim": {"lr": 0.003}},
        "versions": {"torch": "2.13.0"},
        "parameters": 1_009_793,
        "processes": 1,
        "threads": 2,
        "device": "cpu",
        "cache": {
            "header_fields": {"teacher": "place", "licence": "Apache-2.0", "settings": {"data_licences": ["CC0"]}}
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    records = [
        {"step": 1, "kind": "train", "loss": 1.0},
        {"step": 2, "kind": "train", "loss": 0.5},
        {"step": 2, "kind": "validation", "loss": 0.6, "depth_rel": 0.2, "rotation_deg": 20.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_a_teacher_does_not_compete_with_its_student(scores):
    table = score_table(scores)
    assert list(table.rows) == ["student", "teacher", "mean pointmap", "constant depth"]
    assert table.unranked == ["teacher"]
    assert table.metrics["depth_rel"].better == "lower"
    assert table.metrics["depth_delta1"].better == "higher"
    assert "missing" not in table.metrics  # nothing was


def test_key_figures_compare_the_student_with_teacher_and_baseline(tmp_path, manifest, scores):
    data = assemble_report("t", evaluation=load_evaluation(tmp_path / "evaluation"), manifest=manifest, num_groups=1)
    figure = data.key_figures[0]
    assert figure.value == "0.000"
    assert figure.note.startswith("teacher 0.000, mean pointmap 0.")
    assert len(data.views) == len(KNOWN[0].frames)
    assert set(data.views[0].depth) == {"truth", "student", "teacher"}


def test_the_curves_of_a_run_are_those_of_its_metrics(run):
    loss, depth, rotation = curve_panels(run)
    assert [curve.name for curve in loss.curves] == ["train", "validation"]
    assert list(loss.curves[0].values) == [1.0, 0.5]
    assert list(depth.curves[0].values) == [0.2]
    assert list(rotation.curves[0].values) == [20.0]


def test_the_facts_of_a_run_name_its_teacher_and_the_licences(run):
    facts = {group.title: group.facts for group in run_facts(run)}
    assert facts["Student"]["parameters"] == "1,009,793"
    assert facts["Teacher and licences"]["licence of the labels"] == "Apache-2.0"
    assert facts["Teacher and licences"]["licences of the photos"] == "CC0"
    assert facts["Settings"]["optim.lr"] == "0.003"
    assert facts["Times"]["training"] == "not finished"


def test_what_is_not_there_is_left_out():
    data = assemble_report("nothing")
    assert not data.tables
    assert not data.views
    assert not data.facts
    assert data.cloud is None
