"""DUSt3R against recordings of the reference code under seeded weights, and the list of its official weights."""

import json

import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from distill3d.geometry.solve import focal_from_pointmap, median_focal_from_pointmap
from distill3d.models.dust3r import Dust3RConfig
from tests.parity.official import fill_seeded, relative, relative_points, relative_values, shapes_of_manifest, watch

SPEC = models.get("dust3r")
TINY = Dust3RConfig(encoder_dim=64, encoder_depth=2, encoder_heads=4, decoder_dim=48, decoder_heads=4)
LINEAR = Dust3RConfig(encoder_dim=64, encoder_depth=2, encoder_heads=4, decoder_dim=48, decoder_heads=4, head="linear")


@pytest.fixture(scope="module")
def folder(fixtures):
    return fixtures / "dust3r"


@pytest.fixture(scope="module")
def golden(folder):
    return load_file(folder / "golden.safetensors")


def agreement(found, golden):
    """Errors over a confidence's own value, and over the largest value of any other tensor."""
    return {
        name: (relative_values if "conf" in name else relative)(value, golden[name]) for name, value in found.items()
    }


@pytest.fixture(scope="module")
def model():
    return fill_seeded(SPEC.build(TINY), SPEC)


def image(golden, name):
    """A recorded input, in our range."""
    return (golden[name] + 1) / 2


@torch.no_grad()
def test_case_a_agrees_at_every_probe_for_images_of_two_sizes(model, golden):
    with watch({"patch": model.encoder.patch_embed, "encoder": model.encoder, "decoder": model.decoder,
                "raw1": model.heads[0], "raw2": model.heads[1]}) as seen:  # fmt: skip
        first, second = model.compare(image(golden, "A.img1"), image(golden, "A.img2"))
    found = {"A.patch1": seen["patch"][0], "A.raw1": seen["raw1"][0], "A.raw2": seen["raw2"][0]}
    for view in (0, 1):
        found[f"A.enc{view + 1}"] = seen["encoder"][view].tokens
        assert torch.equal(seen["encoder"][view].positions, golden[f"A.pos{view + 1}"])
        for level in (0, 6, 9, 12):
            found[f"A.dec{view + 1}.{level}"] = seen["decoder"][0][view][level]
    found |= {"A.conf1": first.confidence_world[:, 0], "A.conf2": second.confidence_world[:, 0]}
    errors = agreement(found, golden)
    errors["A.pts3d1"] = relative_points(first.pointmap_world[:, 0], golden["A.pts3d1"])
    errors["A.pts3d2_in_1"] = relative_points(second.pointmap_world[:, 0], golden["A.pts3d2_in_1"])
    assert max(errors.values()) < 1e-4, errors
    compared = {*errors, "A.img1", "A.img2", "A.pos1", "A.pos2"}
    assert compared == {name for name in golden if name.startswith("A.")}


@torch.no_grad()
def test_case_b_agrees_for_a_training_batch_of_both_orientations(model, golden):
    images = torch.stack([image(golden, "B.img1"), image(golden, "B.img2")], dim=1)
    with watch({"encoder": model.encoder}) as seen:
        prediction = model(images, portrait=torch.tensor([[False, True], [True, True]]))
    tokens, positions = seen["encoder"][0]
    assert torch.equal(positions[::2], golden["B.pos1"])
    found = {"B.enc1": tokens[::2], "B.enc2": tokens[1::2]}
    found |= {f"B.conf{view + 1}": prediction.confidence_world[:, view] for view in (0, 1)}
    errors = agreement(found, golden)
    errors |= point_errors(prediction, golden, "B")
    assert max(errors.values()) < 1e-4, errors
    assert {*errors, "B.img1", "B.img2", "B.pos1"} == {name for name in golden if name.startswith("B.")}


@torch.no_grad()
def test_case_c_agrees_with_the_linear_head_on_a_pair_and_its_mirror(golden):
    model = fill_seeded(SPEC.build(LINEAR), SPEC)
    pair = torch.stack([image(golden, "C.img_a"), image(golden, "C.img_b")], dim=1)
    prediction = model(torch.cat([pair, pair.flip(1)]))
    errors = {
        f"C.conf{view + 1}": relative_values(prediction.confidence_world[:, view], golden[f"C.conf{view + 1}"])
        for view in (0, 1)
    }
    errors |= point_errors(prediction, golden, "C")
    assert max(errors.values()) < 1e-4, errors
    assert {*errors, "C.img_a", "C.img_b"} == {name for name in golden if name.startswith("C.")}


def point_errors(prediction, golden, case):
    names = (f"{case}.pts3d1", f"{case}.pts3d2_in_1")
    return {name: relative_points(prediction.pointmap_world[:, view], golden[name]) for view, name in enumerate(names)}


def test_focal_lengths_of_a_pointmap_agree(golden):
    height, width = golden["focal.pts3d"].shape[1:3]
    centre = (width / 2, height / 2)  # the reference code's; ours is half a pixel further up and left
    for name, solve in (("weiszfeld", focal_from_pointmap), ("median", median_focal_from_pointmap)):
        found = solve(golden["focal.pts3d"], principal_point=centre)
        torch.testing.assert_close(found, golden[f"focal.{name}"], rtol=1e-4, atol=0)


def test_every_recording_has_its_test(golden):
    # rope: tests/nn/test_rope.py, pre: tests/data/test_centre_crop.py
    assert {name.split(".")[0] for name in golden} == {"A", "B", "C", "rope", "pre", "focal"}


@pytest.mark.parametrize("variant", ["base", "linear"])
def test_the_full_size_model_maps_one_to_one_onto_the_official_entries(folder, variant):
    manifest = json.loads((folder / "manifest.json").read_text())
    expected = shapes_of_manifest(folder / "manifest.json")
    count = manifest["parameter_count"]
    if variant == "linear":
        expected = {name: shape for name, shape in expected.items() if not name.startswith("downstream_head")}
        expected |= dict(manifest["linear_head_variant"]["differing_entries"])
        count = manifest["linear_head_variant"]["parameter_count"]
        assert len(expected) == manifest["linear_head_variant"]["n_entries"]
    with torch.device("meta"):
        full = SPEC.build(SPEC.variants[variant])
    official = checkpoints.to_official(full, SPEC)
    assert {name: list(tensor.shape) for name, tensor in official.items()} == expected
    assert sum(parameter.numel() for parameter in full.parameters()) == count
    once = {
        name: torch.empty(expected[name], device="meta") for name in checkpoints.to_official(full, SPEC, aliases=False)
    }
    checkpoints.load_official(full, SPEC, once, source="the manifest")


@pytest.mark.parametrize("config", [TINY, LINEAR], ids=["dpt", "linear"])
def test_official_weights_come_out_as_they_went_in(config):
    model = fill_seeded(SPEC.build(config), SPEC)
    official = {name: tensor.clone() for name, tensor in checkpoints.to_official(model, SPEC).items()}
    other = SPEC.build(config)
    checkpoints.load_official(other, SPEC, official, source="x")
    again = checkpoints.to_official(other, SPEC)
    assert official.keys() == again.keys()
    assert all(torch.equal(official[name], again[name]) for name in official)
