from dataclasses import replace

import pytest

from distill3d.cli import demo
from tests.cli.calls import call, succeed


@pytest.fixture
def smallest(monkeypatch):
    """The quick demo, quicker."""
    tiny = replace(demo.QUICK, num_train=24, num_test=12, groups=4, held_out=2, photos=3, steps=4)
    monkeypatch.setattr(demo, "QUICK", tiny)


@pytest.mark.slow
def test_the_demo_goes_all_the_way_and_a_second_call_only_looks_again(smallest, tmp_path):
    out = tmp_path / "demo"
    said = succeed("demo", "--quick", "--out", out)
    assert set(said["scores"]) == {"student", "teacher", "mean pointmap", "constant depth"}
    # The shipped teacher knows the place: it must be far better than the trivial answers on photos it never saw.
    assert said["scores"]["teacher"]["depth_rel"] < 0.5 * said["scores"]["mean pointmap"]["depth_rel"]
    assert said["scores"]["teacher"]["rotation_to_first_deg"] < 10
    assert (out / "report.html").stat().st_size > 100_000
    assert (out / "reconstruction" / "points.ply").is_file()

    weights = (out / "run" / "student.safetensors").read_bytes()
    again = succeed("demo", "--quick", "--out", out)
    assert again["scores"] == said["scores"]
    assert (out / "run" / "student.safetensors").read_bytes() == weights


def test_a_demo_of_no_steps_is_refused(tmp_path):
    called = call("demo", "--quick", "--steps", 0, "--out", tmp_path)
    assert called.code == 2
    assert "--steps is 0" in called.err
