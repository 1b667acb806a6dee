"""VGGT against recordings of a tiny network under seeded weights, and the entries of the official file."""

import json

import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from distill3d.geometry.pose_encoding import decode_cameras
from tests.parity.official import fill_seeded, relative, relative_points, relative_values, shapes_of_manifest
from tests.parity.seeded_weights import seeded_tensor

SPEC = models.get("vggt")


@pytest.fixture(scope="module")
def folder(fixtures):
    return fixtures / "vggt"


@pytest.fixture(scope="module")
def golden(folder):
    return load_file(folder / "golden.safetensors")


@pytest.fixture(scope="module")
def recorded_names(folder):
    return dict(json.loads((folder / "golden.json").read_text())["state_dict"])


@pytest.fixture(scope="module")
def model():
    return fill_seeded(SPEC.build(SPEC.variants["tiny"]), SPEC)


@torch.no_grad()
def test_tokens_of_the_encoder_agree_on_a_resized_and_on_the_own_grid(model, golden):
    tokens = model.encoder(model.normalise(golden["images"]).flatten(0, 1))
    assert relative(tokens.patches, golden["encoder.patch_tokens"]) < 1e-5
    assert relative(tokens.cls, golden["encoder.cls"]) < 1e-5
    assert relative(tokens.registers, golden["encoder.registers"]) < 1e-5
    native = model.encoder(model.normalise(golden["native.images"]).flatten(0, 1))
    assert relative(native.patches, golden["native.patch_tokens"]) < 1e-5


@torch.no_grad()
def test_every_level_and_every_refinement_of_the_cameras_agrees(model, golden):
    levels = model.aggregate(golden["images"], (0, 1, 2, 3))
    for index in range(4):
        assert relative_points(levels[index], golden[f"aggregated.{index}"]) < 1e-5
    encodings = model.camera_head(levels[-1][:, :, 0])
    for index, encoding in enumerate(encodings):
        assert relative(encoding, golden[f"pose_enc.{index}"]) < 1e-5
    assert len(encodings) == sum(name.startswith("pose_enc.") for name in golden)


@torch.no_grad()
def test_maps_agree_at_every_pixel(model, golden):
    prediction = model(golden["images"])
    assert relative_values(prediction.depth, golden["depth"][..., 0]) < 1e-5
    assert relative_values(prediction.confidence_depth, golden["depth_conf"]) < 1e-5
    assert relative_points(prediction.pointmap_world, golden["world_points"]) < 1e-4
    assert relative_values(prediction.confidence_world, golden["world_points_conf"]) < 1e-5


@torch.no_grad()
def test_cameras_are_the_last_refinement_decoded(model, golden):
    prediction = model(golden["images"])
    world_from_camera, intrinsics = decode_cameras(golden["pose_enc.3"], 56, 70)
    assert relative(prediction.world_from_camera, world_from_camera) < 1e-5
    assert relative(prediction.intrinsics, intrinsics) < 1e-4
    assert (prediction.intrinsics[..., :2, 2] == torch.tensor([35.0, 28.0])).all()


@torch.no_grad()
def test_two_scenes_at_once_agree_with_the_recording_and_with_each_alone(model, golden):
    scenes = torch.cat([golden["images"][:, :2], golden["batch2.images"]])
    both = model(scenes)
    assert relative(both.depth.mean(dim=(2, 3)), golden["batch2.depth_mean"]) < 1e-5
    assert relative(both.pointmap_world.mean(dim=(2, 3)), golden["batch2.world_points_mean"]) < 1e-5
    pose, intrinsics = decode_cameras(golden["batch2.pose_enc"], 56, 70)
    assert relative(both.world_from_camera, pose) < 1e-5
    assert relative(both.intrinsics, intrinsics) < 1e-4
    for index in range(2):
        alone = model(scenes[index : index + 1])
        assert relative_points(alone.pointmap_world[0], both.pointmap_world[index]) < 1e-5
        assert relative_values(alone.depth[0], both.depth[index]) < 1e-5
        assert relative(alone.world_from_camera[0], both.world_from_camera[index]) < 1e-5


@torch.no_grad()
def test_features_and_tracks_agree(model, golden):
    images, queries = golden["images"], golden["query_points"]
    patches = model._patches(model.aggregate(images, (0, 1, 2, 3))[:-1])
    features = model.tracker.features(patches, (4, 5))
    assert relative(features[:1, :4], golden["track_features"][0]) < 1e-5
    tracks = model.track(images, queries, iterations=2)
    assert relative(tracks.rounds[0], golden["track.0"]) < 1e-6
    # With random weights each round enlarges rounding about a hundredfold, in upstream too.
    assert relative(tracks.rounds[1], golden["track.1"]) < 1e-4
    once = model.track(images, queries, iterations=1)
    assert relative_values(once.visibility, golden["vis_iters1"]) < 1e-4
    assert relative_values(once.confidence, golden["track_conf_iters1"]) < 1e-4


def test_the_tiny_network_has_the_recorded_names_and_makes_the_round_trip(model, recorded_names):
    official = checkpoints.to_official(model, SPEC)
    assert {name: list(value.shape) for name, value in official.items()} == recorded_names
    other = SPEC.build(SPEC.variants["tiny"])
    checkpoints.load_official(other, SPEC, official, source="test")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(
        official["aggregator.camera_token"], seeded_tensor("aggregator.camera_token", tuple(model.camera_token.shape))
    )


def test_the_full_network_has_every_entry_of_the_official_file_and_no_other(folder):
    with torch.device("meta"):
        full = SPEC.build(SPEC.variants["base"])
    shapes = shapes_of_manifest(folder / "manifest.json")
    assert {name: list(value.shape) for name, value in checkpoints.to_official(full, SPEC).items()} == shapes
    assert len(shapes) == 1797
    assert sum(parameter.numel() for parameter in full.parameters()) == 1_256_537_516
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    checkpoints.load_official(full, SPEC, weights, source="model.safetensors")
