"""Pi3 and Pi3X against recordings of the reference code under seeded weights."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from distill3d import checkpoints, models
from distill3d.geometry.cameras import intrinsics_from_corner_convention
from distill3d.models._pi3_parts import rotation_from_nine
from distill3d.nn.rope import grid_positions
from tests.parity.official import relative, relative_points, shapes_of_manifest, watch
from tests.parity.seeded_weights import seeded_tensor

SPEC = models.get("pi3")
VARIANTS = {"pi3": "tiny", "pi3x": "tinyx"}
STATISTICS = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}


def seeded(fixtures, name):
    """The model that was recorded, its weights under official names, and the recordings."""
    entries = json.loads((fixtures / name / "golden.json").read_text())["state_dict"]
    weights = {entry: seeded_tensor(entry, tuple(shape)) for entry, shape in entries}
    weights |= {entry: torch.tensor(values).view(1, 3, 1, 1) for entry, values in STATISTICS.items()}
    model = SPEC.build(SPEC.variants[VARIANTS[name]])
    checkpoints.load_official(model, SPEC, weights, source=name)
    return model.eval(), weights, load_file(fixtures / name / "golden.safetensors")


@pytest.fixture(scope="module")
def plain(fixtures):
    return seeded(fixtures, "pi3")


@pytest.fixture(scope="module")
def extended(fixtures):
    return seeded(fixtures, "pi3x")


@pytest.fixture(scope="module")
def conditions(extended):
    golden = extended[2]
    return {
        "depth": golden["cond.depths"],
        "intrinsics": intrinsics_from_corner_convention(golden["cond.intrinsics"]),
        "world_from_camera": golden["cond.poses"],
    }


def assert_all_small(errors, limit=1e-4):
    assert max(errors.values()) < limit, errors


@torch.no_grad()
def test_pi3_agrees_at_every_probe_and_output(plain):
    model, _, golden = plain
    parts = {"encoder": model.encoder, "point_head": model.point_head, "conf_head": model.conf_head}
    parts |= {name: getattr(model, name) for name in ("point_decoder", "conf_decoder", "camera_decoder")}
    with watch(parts) as seen:
        found = model(golden["images"])
        decoded = model.decode(golden["images"])
    errors = {"encoder": relative(seen["encoder"][0].patches, golden["encoder.patch_tokens"])}
    errors |= {name: relative(seen[name][0], golden[name]) for name in parts if name.endswith("decoder")}
    errors["decoder.output"] = relative(decoded, golden["decoder.output"])
    errors["point_head.raw"] = relative(seen["point_head"][0].permute(0, 2, 3, 1), golden["point_head.raw"])
    errors["conf"] = relative(seen["conf_head"][0][None, :, 0], golden["conf"][..., 0])
    errors["probability"] = relative(found.confidence_camera, golden["conf"][..., 0].sigmoid())
    errors["camera_poses"] = relative(found.world_from_camera, golden["camera_poses"])
    errors["local_points"] = relative_points(found.pointmap_camera, golden["local_points"])
    errors["points"] = relative_points(found.pointmap_world, golden["points"])
    assert_all_small(errors)
    positions = F.pad(grid_positions(4, 5) + 1, (0, 0, 5, 0))
    assert torch.equal(positions.expand(3, -1, -1), golden["decoder.positions"])


def test_rotations_agree(plain):
    golden = plain[2]
    torch.testing.assert_close(rotation_from_nine(golden["svd.in"]), golden["svd.rotation"], rtol=1e-5, atol=1e-5)


CASES = {
    "plain": (),
    "all": ("depth", "intrinsics", "world_from_camera"),
    "rays_only": ("intrinsics",),
    "pose_no_depth": ("intrinsics", "world_from_camera"),
    "partial": ("depth", "intrinsics", "world_from_camera"),
}
PARTIAL = {"has_depth": [[1, 0, 1]], "has_rays": [[1, 1, 0]], "has_pose": [[0, 1, 1]]}


@torch.no_grad()
@pytest.mark.parametrize("case", list(CASES))
def test_pi3x_agrees_with_every_set_of_conditions(extended, conditions, case):
    model, _, golden = extended
    given = {name: conditions[name] for name in CASES[case]}
    if case == "partial":
        given |= {name: torch.tensor(mask, dtype=torch.bool) for name, mask in PARTIAL.items()}
    with watch({"metric": model.metric_head, "conf": model.conf_head}) as seen:
        found = model(golden["images"], **given)
    recorded = {name.removeprefix(f"{case}."): value for name, value in golden.items() if name.startswith(f"{case}.")}
    maps = {
        "metric": seen["metric"][0].flatten().exp(),
        "camera_poses": found.world_from_camera,
        "local_points": found.pointmap_camera,
        "local_points_every4": found.pointmap_camera[:, :, ::4, ::4],
        "points": found.pointmap_world,
        "rays": F.normalize(found.pointmap_camera, dim=-1),
        "conf": seen["conf"][0][0][None, :, 0, ..., None],
    }
    measure = {name: relative_points if "points" in name or name == "rays" else relative for name in recorded}
    assert_all_small({name: measure[name](maps[name], value) for name, value in recorded.items()})
    assert torch.equal(found.metric_scale, torch.ones(1))


@pytest.mark.parametrize("name", list(VARIANTS))
def test_official_weights_make_the_round_trip(fixtures, name):
    model, weights, _ = seeded(fixtures, name)
    official = checkpoints.to_official(model, SPEC)
    assert official.keys() == weights.keys()
    assert all(torch.equal(official[key], tensor) for key, tensor in weights.items())


@pytest.mark.parametrize("name", list(VARIANTS))
def test_the_published_size_has_exactly_the_manifest_s_entries(fixtures, name):
    manifest = fixtures / name / "manifest.json"
    with torch.device("meta"):
        model = SPEC.build(SPEC.variants[name])
    official = checkpoints.to_official(model, SPEC)
    shapes = shapes_of_manifest(manifest)
    assert {key: list(tensor.shape) for key, tensor in official.items()} == shapes
    assert {str(tensor.dtype) for tensor in official.values()} == {"torch.float32"}
    described = json.loads(manifest.read_text())
    assert sum(parameter.numel() for parameter in model.parameters()) == described["parameter_count"]
    empty = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    checkpoints.load_official(model, SPEC, empty, source=name)
    if name == "pi3x":
        with torch.device("meta"):
            photos_only = SPEC.build(SPEC.variants["pi3x-photos"])
        checkpoints.load_official(photos_only, SPEC, empty, source=name)
        assert 9.8e8 < sum(parameter.numel() for parameter in photos_only.parameters()) < 9.95e8
