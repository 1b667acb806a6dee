import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.eval.check_goldens import bound_of, check_case, depth_eval, deviation, main


def recorded(fixtures):
    folder = fixtures / "eval"
    return load_file(folder / "metric_goldens.safetensors"), json.loads((folder / "metric_goldens.json").read_text())[
        "cases"
    ]


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        path = metafunc.config.rootpath / "tests" / "fixtures" / "eval" / "metric_goldens.json"
        metafunc.parametrize("case", json.loads(path.read_text())["cases"])


@pytest.fixture(scope="module")
def goldens(fixtures):
    return recorded(fixtures)


def test_a_metric_gives_what_the_reference_program_gave(case, goldens):
    arrays, cases = goldens
    checked = check_case(arrays, case, cases[case])
    assert checked.missing == ()
    assert checked.worst <= 1e-6, f"{checked.output} is off by {checked.worst}"


def test_a_wrong_recording_is_noticed(goldens):
    arrays, cases = goldens
    spoilt = {**arrays, "trajectory/out_ate_rmse": arrays["trajectory/out_ate_rmse"] + 1e-5}
    assert not check_case(spoilt, "trajectory", cases["trajectory"]).good
    assert deviation([1.0, 2.0], np.array([1.0])) == float("inf")
    assert deviation([np.nan], np.array([1.0])) == float("inf")
    assert deviation([np.nan], np.array([np.nan])) == 0
    with pytest.raises(ValueError, match="unknown kind"):
        check_case(arrays, "telepathy", {})


@pytest.mark.parametrize("name", ["depth_eval/lad_scipy_max70_clipNone", "depth_eval/irls_scale_maxNone_clipNone"])
def test_where_a_wide_bound_is_allowed_the_last_digit_of_the_input_decides(goldens, name):
    """Else the bound would hide mistakes: other fits do not move by rounding."""
    arrays, cases = goldens
    truth, given = arrays["depth_eval/gt_depth"], arrays["depth_eval/pred_depth"]
    moved = {name: 0.0, "depth_eval/median_max70_clipNone": 0.0, "depth_eval/lstsq_max70_clipNone": 0.0}
    for seed in range(40):
        generator = np.random.default_rng(seed)
        other = given * np.exp(generator.normal(0, 0.03, given.shape))
        rounded = other * (1 + generator.normal(0, 1e-16, given.shape))
        for each in moved:
            first, second = (
                depth_eval({"pred_depth": depth, "gt_depth": truth}, cases[each], {}, each)
                for depth in (other, rounded)
            )
            moved[each] = max(moved[each], *(deviation(first[key], np.array(second[key])) for key in first))
    assert bound_of(name, "abs_rel") == 1e-3
    assert moved.pop(name) > 1e-6
    assert max(moved.values()) < 1e-9


def test_one_case_that_fails_does_not_hide_the_others(tmp_path, goldens, capsys, monkeypatch):
    arrays, cases = goldens
    chosen = {"pose_auc_only": cases["pose_auc_only"], "trajectory": cases["trajectory"], "telepathy": {}}
    kept = {key: value for key, value in arrays.items() if key.split("/")[0] in chosen}
    (tmp_path / "g.json").write_text(json.dumps({"cases": chosen}))
    save_file({**kept, "trajectory/pred_c2w": np.zeros((2, 3))}, tmp_path / "g.safetensors")
    monkeypatch.setattr(sys, "argv", ["check", str(tmp_path / "g.safetensors"), str(tmp_path / "g.json")])
    assert main() == 1
    told = capsys.readouterr().out
    assert "ok   pose_auc_only" in told
    assert "FAIL trajectory" in told
    assert "unknown kind" in told
    assert "1 of 3 cases" in told


def test_the_command_prints_every_case_and_fails_for_a_wrong_one(tmp_path, goldens):
    arrays, cases = goldens
    names = ["boundary_f1", "trajectory"]
    (tmp_path / "g.json").write_text(json.dumps({"cases": {name: cases[name] for name in names}}))
    kept = {key: value for key, value in arrays.items() if key.split("/")[0] in names}
    save_file({**kept, "trajectory/out_ate_rmse": np.array([1.0])}, tmp_path / "g.safetensors")
    command = [
        sys.executable,
        "-m",
        "tests.eval.check_goldens",
        str(tmp_path / "g.safetensors"),
        str(tmp_path / "g.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ok   boundary_f1" in done.stdout
    assert "FAIL trajectory" in done.stdout
