"""MoGe-1 and MoGe-2 against recordings of the reference code under seeded weights."""

import json

import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from distill3d.geometry.monocular import solve_affine
from distill3d.geometry.shift import focal_and_shift_from_pointmap
from distill3d.types import Prediction
from tests.parity.seeded_weights import seeded_tensor

SPEC = models.get("moge")
VERSIONS = {"moge1": "tiny1", "moge2": "tiny2"}


@pytest.fixture(scope="module", params=list(VERSIONS))
def version(request):
    return request.param


@pytest.fixture(scope="module")
def golden(fixtures, version):
    return load_file(fixtures / version / "golden.safetensors")


@pytest.fixture(scope="module")
def weights(fixtures, version):
    names = json.loads((fixtures / version / "golden.json").read_text())["state_dict"]
    found = {name: seeded_tensor(name, tuple(shape)) for name, shape in names}
    statistics = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
    for name in found:
        if name.split(".")[-1] in statistics:
            found[name] = torch.tensor(statistics[name.split(".")[-1]]).view(1, 3, 1, 1)
    return found


@pytest.fixture(scope="module")
def model(version, weights):
    network = SPEC.build(SPEC.variants[VERSIONS[version]])
    checkpoints.load_official(network, SPEC, weights, source=version)
    return network.eval()


def relative(found, recorded):
    """Largest deviation over the largest magnitude."""
    assert found.shape == recorded.shape
    return ((found - recorded).abs().max() / recorded.abs().max()).item()


def relative_points(found, recorded):
    """Largest deviation of a point over its own distance."""
    assert found.shape == recorded.shape
    return ((found - recorded).norm(dim=-1) / recorded.norm(dim=-1)).max().item()


def captured(module, into, name):
    return module.register_forward_hook(lambda _module, inputs, output: into.update({name: (inputs, output)}))


def assert_all_small(errors, limit=1e-4):
    assert max(errors.values()) < limit, errors


@torch.no_grad()
@pytest.mark.parametrize("version", ["moge1"], indirect=True)
def test_every_probe_inside_the_first_version_agrees(model, golden):
    seen = {}
    levels = {}
    inner = model.backbone.intermediate
    model.backbone.intermediate = lambda *args: levels.setdefault("out", inner(*args))
    hooks = [captured(model.normalise, seen, "normalise"), captured(model.backbone.patch_embed, seen, "patches")]
    try:
        model.maps(golden["images"], 30)
    finally:
        del model.backbone.intermediate
        for hook in hooks:
            hook.remove()
    found = {"resized_normalised": seen["normalise"][1], "image_14": seen["patches"][0][0]}
    for index, level in enumerate(levels["out"]):
        found |= {f"features.{index}": level.patches, f"cls.{index}": level.cls}
    assert_all_small({name: relative(value, golden[f"up.{name}"]) for name, value in found.items()})


@torch.no_grad()
@pytest.mark.parametrize("version", ["moge2"], indirect=True)
def test_every_probe_inside_the_second_version_agrees(model, golden):
    seen = {}
    hooks = [captured(model.encoder, seen, "encoder"), captured(model.neck, seen, "neck")]
    model.maps(golden["images"], 30)
    for hook in hooks:
        hook.remove()
    found = {"encoder_feature": seen["encoder"][1][0], "cls": seen["encoder"][1][1]}
    found |= {f"neck.{index}": level[:, :4] if index == 4 else level for index, level in enumerate(seen["neck"][1])}
    assert_all_small({name: relative(value, golden[f"up.{name}"]) for name, value in found.items()})


@torch.no_grad()
def test_all_outputs_agree_for_larger_and_smaller_grids(model, golden, version):
    cases = {
        "up": ("images", 30),
        **({"down": ("images", 12)} if version == "moge1" else {"tall": ("tall.images", 20)}),
    }
    errors = {}
    for case, (images, num_tokens) in cases.items():
        prediction = model(golden[images][:, None], num_tokens=num_tokens)
        errors[f"{case}.points"] = relative_points(prediction.pointmap_camera[:, 0], golden[f"{case}.points"])
        errors[f"{case}.mask"] = relative(prediction.confidence_camera[:, 0], golden[f"{case}.mask"])
        assert torch.equal(prediction.valid, prediction.confidence_camera > 0.5)
        if version == "moge2":
            errors[f"{case}.normal"] = relative_points(prediction.normal[:, 0], golden[f"{case}.normal"])
            errors[f"{case}.metric_scale"] = relative(prediction.metric_scale, golden[f"{case}.metric_scale"])
    assert_all_small(errors)


def test_focal_length_and_shift_agree(golden):
    points, mask = golden["solve.points"], golden["solve.mask"]
    half_diagonal = torch.tensor(points.shape[1:3]).float().norm() / 2
    focal, shift = focal_and_shift_from_pointmap(points, mask)
    torch.testing.assert_close(focal / half_diagonal, golden["solve.focal"], rtol=1e-4, atol=0)
    torch.testing.assert_close(shift, golden["solve.shift"], rtol=1e-4, atol=1e-6)
    given = golden["solve.given_focal"]
    focal, shift = focal_and_shift_from_pointmap(points[:2], mask[:2], given * half_diagonal)
    torch.testing.assert_close(focal / half_diagonal, given)
    torch.testing.assert_close(shift, golden["solve.shift_given_focal"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("case", ["a", "b"])
def test_what_users_get_of_the_affine_maps_agrees(golden, version, case):
    soft = golden["post.in.mask"]
    height, width = soft.shape[1:]
    raw = Prediction(
        pointmap_camera=golden["solve.points"][:2, None], confidence_camera=soft[:, None], valid=soft[:, None] > 0.5,
        metric_scale=golden.get("post.in.metric_scale"),
        normal=_at_full_size(golden.get("post.in.normal")),
    )  # fmt: skip
    if case == "a":
        found = solve_affine(raw)
    else:
        found = solve_affine(raw, fov_x_rad=torch.deg2rad(torch.tensor(58.0)).item(), force_projection=False)
    recorded = {name.removeprefix(f"post.{case}."): value for name, value in golden.items() if f"post.{case}." in name}
    assert torch.equal(found.valid[:, 0], recorded["mask"])
    kept = recorded["mask"]  # elsewhere the recorded maps of case a are infinite
    assert relative_points(found.pointmap_camera[:, 0][kept], recorded["points"][kept]) < 1e-4
    torch.testing.assert_close(found.depth[:, 0][kept], recorded["depth"][kept], rtol=1e-4, atol=0)
    if "normal" in recorded:
        normal = found.normal[:, 0, ::8, ::8]
        if case == "a":  # theirs are 0 where the mask is off
            normal = torch.where(found.valid[:, 0, ::8, ::8, None], normal, 0.0)
        assert torch.equal(normal, recorded["normal"])
    # Theirs are in image widths and heights, with (0, 0) at the image's corner.
    size = torch.tensor([width, height, 1.0])
    pixels = recorded["intrinsics"] * size[:, None]
    pixels[:, :2, 2] -= 0.5
    torch.testing.assert_close(found.intrinsics[:, 0], pixels, rtol=1e-4, atol=1e-3)


def _at_full_size(normal):
    """The recorded normals are every eighth of each row and column."""
    return None if normal is None else normal.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]


def test_resolution_levels_ask_for_the_recorded_numbers_of_tokens(model, golden):
    assert [model.num_tokens(9), model.num_tokens(3)] == golden["post.num_tokens"].tolist()


def test_official_weights_make_the_round_trip(model, weights):
    official = checkpoints.to_official(model, SPEC)
    assert official.keys() == weights.keys()
    assert all(torch.equal(official[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("variant", [name for name in SPEC.variants if not name.startswith("tiny")])
def test_every_published_size_has_exactly_the_manifest_s_entries(fixtures, variant):
    manifest = json.loads((fixtures / ("moge2" if "-2-" in variant else "moge1") / "manifest.json").read_text())
    described = manifest.get("variants", {}).get(variant, manifest)
    with torch.device("meta"):
        network = SPEC.build(SPEC.variants[variant])
    official = checkpoints.to_official(network, SPEC)
    assert {name: list(tensor.shape) for name, tensor in official.items()} == {
        name: shape for name, shape, _ in described["entries"]
    }
    assert sum(parameter.numel() for parameter in network.parameters()) == described["parameter_count"]
    assert {str(tensor.dtype).removeprefix("torch.") for tensor in official.values()} == {"float32"}
    empty = {name: torch.empty(shape, device="meta") for name, shape, _ in described["entries"]}
    checkpoints.load_official(network, SPEC, empty, source=variant)
