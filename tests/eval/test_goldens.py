import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.eval.check_goldens import check_case, deviation


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
    assert deviation([np.nan], np.array([1.0])) != 0
    assert deviation([np.nan], np.array([np.nan])) == 0
    with pytest.raises(ValueError, match="unknown kind"):
        check_case(arrays, "telepathy", {})


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
