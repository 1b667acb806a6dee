import json

import pytest
import torch

from distill3d.errors import ConfigError, DataError
from distill3d.eval.run import BASELINES, PLAN, Method, evaluate, load_evaluation, slug
from distill3d.types import Views
from tests.eval.annotated import FIT, GROUPS, exact, write_scenes


@pytest.fixture
def manifest(tmp_path):
    return write_scenes(tmp_path / "scenes")


def test_the_truth_beats_the_baselines_and_everything_can_be_read_back(tmp_path, manifest):
    scores = evaluate(
        {"student": Method(predict=exact)}, manifest, GROUPS, FIT, tmp_path / "e", train_groups=GROUPS[:2]
    )
    rows = scores.rows()
    assert list(rows) == ["student", *BASELINES]
    assert rows["student"]["depth_rel"] == pytest.approx(0, abs=1e-5)
    assert all(rows[name]["depth_rel"] > 0.01 for name in BASELINES)

    stored = load_evaluation(tmp_path / "e")
    assert stored.groups == tuple(GROUPS)
    assert stored.fit == FIT
    assert stored.scores().rows() == rows
    views = stored.views(manifest, GROUPS[0])
    assert isinstance(views, Views)
    answer = stored.prediction("student", GROUPS[0])
    torch.testing.assert_close(answer.pointmap_camera, exact(views).pointmap_camera)
    assert (tmp_path / "e" / "scores.md").read_text() == scores.markdown()
    table = (tmp_path / "e" / "scores.tex").read_text()
    assert table.count(r"\\") == 1 + len(scores.methods)
    assert table.splitlines()[1].startswith(r"\begin{tabular}{l")


def test_a_second_call_asks_nobody_again(tmp_path, manifest):
    asked = []

    def watched(views):
        asked.append(views)
        return exact(views)

    first = evaluate({"student": Method(predict=watched)}, manifest, GROUPS, FIT, tmp_path)
    assert len(asked) == len(GROUPS)
    second = evaluate({"student": Method(predict=watched)}, manifest, GROUPS, FIT, tmp_path)
    assert len(asked) == len(GROUPS)
    assert first.rows() == second.rows()


def test_a_method_sees_the_truth_only_if_it_may(tmp_path, manifest):
    seen = {}

    def watcher(name):
        def predict(views):
            seen[name] = views.depth is not None
            return exact(views)

        return predict

    methods = {
        "blind": Method(predict=watcher("blind")),
        "open": Method(predict=watcher("open"), sees_truth=True),
    }
    evaluate(methods, manifest, GROUPS[:2], FIT, tmp_path)
    assert seen == {"blind": False, "open": True}


def test_other_weights_are_not_mixed_with_stored_predictions(tmp_path, manifest):
    evaluate({"student": Method(predict=exact, settings={"hash": "a"})}, manifest, GROUPS, FIT, tmp_path)
    with pytest.raises(ConfigError, match="hash"):
        evaluate({"student": Method(predict=exact, settings={"hash": "b"})}, manifest, GROUPS, FIT, tmp_path)


def test_a_teacher_can_stand_for_the_truth(tmp_path, manifest):
    methods = {"student": Method(predict=exact), "teacher": Method(predict=exact)}
    with pytest.raises(ConfigError, match="not among the methods"):
        evaluate(methods, manifest, GROUPS[2:], FIT, tmp_path / "a", reference="oracle")
    with pytest.raises(DataError):
        evaluate(methods, manifest, GROUPS[2:], FIT, tmp_path / "b")
    scores = evaluate(methods, manifest, GROUPS[2:], FIT, tmp_path / "c", reference="teacher")
    assert scores.protocol.startswith("agreement")


def test_what_is_no_evaluation_is_refused_in_words(tmp_path, manifest):
    with pytest.raises(ConfigError, match="no finished evaluation"):
        load_evaluation(tmp_path)
    evaluate({"student": Method(predict=exact)}, manifest, GROUPS, FIT, tmp_path)
    with pytest.raises(ConfigError, match="no method 'oracle'; it has student"):
        load_evaluation(tmp_path).prediction("oracle", GROUPS[0])
    plan = json.loads((tmp_path / PLAN).read_text())
    (tmp_path / PLAN).write_text(json.dumps({**plan, "format": 99}))
    with pytest.raises(ConfigError, match="format 99"):
        load_evaluation(tmp_path)


def test_names_of_methods_become_names_of_folders():
    assert slug("mean pointmap") == "mean-pointmap"
    assert slug("teacher runs/a b") == "teacher-runs-a-b"
