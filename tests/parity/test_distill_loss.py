"""The loss against recordings of the authors' code and of the printed equations, with gradients."""

import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from distill3d.losses import DistillLossConfig, distill_loss, paper_equations, reference_code
from distill3d.types import Prediction

VARIANTS = {
    "default": reference_code(),
    "no_conf_weight": dataclasses.replace(reference_code(), weight_by="none"),
    "student_conf_weight": dataclasses.replace(reference_code(), weight_by="student"),
    "paper_equations_raw_confidence_weight": paper_equations(),
    "paper_equations_clamped_weight": DistillLossConfig(weight_form="clamped"),
}
NAMES = {"xyz_global": "pointmap_world", "xyz_local": "pointmap_camera"}
NAMES |= {"conf_global": "confidence_world", "conf_local": "confidence_camera"}
FOLDER = Path(__file__).parents[1] / "fixtures" / "distill3r_student"
RECORDINGS = json.loads((FOLDER / "loss_golden.json").read_text())["cases"]
RECORDED = [(case, variant) for case, found in RECORDINGS.items() for variant in found if variant in VARIANTS]


@pytest.fixture(scope="module")
def golden():
    return load_file(FOLDER / "loss_golden.safetensors")


def side(golden, case, whose):
    return Prediction(**{ours: golden[f"{case}.{whose}.{theirs}"].clone() for theirs, ours in NAMES.items()})


def test_every_recorded_variant_is_compared():
    assert len(RECORDED) == 13
    assert {variant for _, variant in RECORDED} == set(VARIANTS)


@pytest.mark.parametrize(("case", "variant"), RECORDED)
def test_values_agree(golden, case, variant):
    found = distill_loss(
        side(golden, case, "student"), side(golden, case, "teacher"), golden[f"{case}.mask"], VARIANTS[variant]
    )
    recorded = RECORDINGS[case][variant]
    total = recorded["weighted"]["total"] if "weighted" in recorded else recorded["total"]
    unweighted = recorded.get("unweighted", recorded)
    assert found.total.item() == pytest.approx(total, rel=1e-6)
    for name in ("global", "local", "confidence"):
        assert found.terms[name].item() == pytest.approx(unweighted[name], rel=1e-6), name


@pytest.mark.parametrize("case", list(RECORDINGS))
def test_gradients_agree(golden, case):
    student = side(golden, case, "student")
    for name in NAMES.values():
        getattr(student, name).requires_grad_()
    distill_loss(student, side(golden, case, "teacher"), golden[f"{case}.mask"], reference_code()).total.backward()
    for theirs, ours in NAMES.items():
        recorded = golden[f"{case}.grad.{theirs}"]
        found = getattr(student, ours).grad
        assert (found - recorded).abs().max() < 2e-6 * recorded.abs().max(), ours
