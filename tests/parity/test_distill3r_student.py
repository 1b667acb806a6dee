"""The paper's network against recordings of the reference code under seeded weights."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from tests.parity.official import load_seeded, seeded_official_weights

SPEC = models.get("distill3r")
RECORDED = dataclasses.replace(SPEC.variants["paper"], image_normalisation="half", attention_scale="log_ratio")


@pytest.fixture(scope="module")
def folder(fixtures):
    return fixtures / "distill3r_student"


@pytest.fixture(scope="module")
def golden(folder):
    return load_file(folder / "golden.safetensors")


@pytest.fixture(scope="module")
def student(folder):
    return load_seeded(SPEC.build(RECORDED), SPEC, folder / "manifest.json")


def relative(found, recorded):
    """Largest deviation over the largest magnitude."""
    return ((found - recorded).abs().max() / recorded.abs().max()).item()


def relative_points(found, recorded):
    """Largest deviation of a point over its own distance (points span four orders of magnitude)."""
    return ((found - recorded).norm(dim=-1) / recorded.norm(dim=-1)).max().item()


def assert_maps_equal(prediction, golden, case, stride=(slice(None), slice(None))):
    rows, columns = stride
    maps = {
        "pts3d_global": prediction.pointmap_world,
        "pts3d_local": prediction.pointmap_camera,
        "conf_global": prediction.confidence_world,
        "conf_local": prediction.confidence_camera,
    }
    compared = 0
    for name, found in maps.items():
        if f"{case}.{name}" not in golden:
            continue
        recorded = golden[f"{case}.{name}"]
        found = found[0, :, rows, columns]
        error = (
            relative_points(found, recorded)
            if name.startswith("pts3d")
            else ((found - recorded) / recorded).abs().max()
        )
        assert error < 1e-4, f"{case}.{name}: {error:.1e}"
        compared += 1
    return compared


def captured(module, into, name):
    return module.register_forward_hook(lambda _module, inputs, output: into.update({name: (inputs[0], output)}))


@torch.no_grad()
def test_case_a_agrees_at_every_probe_inside_the_network(student, golden):
    seen = {}
    hooks = [captured(student.encoder.blocks[0], seen, "block0"), captured(student.encoder.blocks[-1], seen, "last")]
    hooks += [captured(student.fusion, seen, "fusion")]
    hooks += [captured(part, seen, f"act{i}") for i, part in enumerate(student.head_world.reassemble)]
    hooks += [captured(part, seen, f"refinenet{i + 1}") for i, part in enumerate(student.head_world.fuse)]
    hooks += [captured(student.head_world, seen, "global"), captured(student.head_camera, seen, "local")]
    try:
        prediction = student((golden["images"][None] + 1) / 2, view_ids=torch.tensor([[0, 1, 2]]))
    finally:
        for hook in hooks:
            hook.remove()
    levels = [level.flatten(1, 2) for level in seen["fusion"][1]]
    found = {
        "encoder.tokens_in": seen["block0"][0],
        "encoder.block0": seen["block0"][1],
        "encoder.x_prenorm": seen["last"][1],
        **{f"decoder.{index}": levels[index] for index in (0, 3, 4, 6)},
        **{f"head_global.act{index}.view0": seen[f"act{index}"][1][:1] for index in range(4)},
        "head_global.refinenet4.view0": seen["refinenet4"][1][:1],
        "head_global.refinenet3.view0": seen["refinenet3"][1][:1],
        "head_global.raw": seen["global"][1],
        "head_local.raw": seen["local"][1],
    }
    errors = {name: relative(value, golden[f"a.{name}"]) for name, value in found.items()}
    assert max(errors.values()) < 2e-5, errors
    assert assert_maps_equal(prediction, golden, "a") == 4
    recorded = {name for name in golden if name.startswith("a.")}
    assert recorded == {f"a.{name}" for name in found} | {
        name for name in recorded if "pts3d" in name or "conf" in name
    }


@torch.no_grad()
def test_case_b_agrees_with_other_view_ids(student, golden):
    images = (golden["images"][None] + 1) / 2
    assert assert_maps_equal(student(images, view_ids=torch.tensor([[0, 417, 42]])), golden, "b") == 4


@torch.no_grad()
def test_case_c_agrees_with_the_attention_scale_of_training(folder, golden):
    model = SPEC.build(dataclasses.replace(RECORDED, attention_scale="standard"))
    load_seeded(model, SPEC, folder / "manifest.json")
    images = (golden["images"][None] + 1) / 2
    assert assert_maps_equal(model(images, view_ids=torch.tensor([[0, 1, 2]])), golden, "c") == 2


@torch.no_grad()
def test_case_d_agrees_on_large_wide_images_in_any_head_chunks(student, golden, folder):
    raw = np.random.Generator(np.random.PCG64(12)).random((2, 3, 224, 518), dtype=np.float32) * 2 - 1
    recorded = json.loads((folder / "golden.json").read_text())["cases"]["d"]
    assert hashlib.sha256(raw.tobytes()).hexdigest() == recorded["images_sha256"]
    seen = {}
    hook = captured(student.fusion, seen, "fusion")
    prediction = student((torch.from_numpy(raw)[None] + 1) / 2, view_ids=torch.tensor([[0, 1]]), head_chunk=1)
    hook.remove()
    assert assert_maps_equal(prediction, golden, "d", (slice(7, None, 16), slice(7, None, 16))) == 4
    for index in (0, 6):
        level = seen["fusion"][1][index].flatten(1, 2)[:, ::37]
        assert relative(level, golden[f"d.decoder.{index}"]) < 2e-5


def test_the_parameters_are_those_of_the_manifest(student, folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sum(parameter.numel() for parameter in student.parameters()) == manifest["total_parameters"] == 71_969_288
    unused = manifest["parameters_without_gradient"]
    frozen = {id(parameter) for parameter in student.parameters() if not parameter.requires_grad}
    official = checkpoints.to_official(student, SPEC)
    own = dict(
        zip(checkpoints.restore_keys(dict(student.named_parameters()), SPEC.renames), student.parameters(), strict=True)
    )
    assert {name for name, parameter in own.items() if id(parameter) in frozen} == set(unused["names"])
    assert set(unused["names"]) <= set(official)


def test_every_entry_of_the_manifest_makes_the_round_trip(student, folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    weights = seeded_official_weights(folder / "manifest.json")
    official = checkpoints.to_official(student, SPEC)
    assert {name: list(tensor.shape) for name, tensor in official.items()} == {
        entry["name"]: entry["shape"] for entry in manifest["entries"]
    }
    assert all(torch.equal(official[name], weights[name]) for name in weights)
