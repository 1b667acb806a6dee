"""The encoder against recordings of DUNE under seeded weights."""

import json

import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints
from distill3d.nn.dino_vit import DinoViT
from tests.parity.seeded_weights import seeded_tensor


@pytest.fixture(scope="module")
def golden(fixtures):
    return load_file(fixtures / "dune" / "golden.safetensors")


@pytest.fixture(scope="module")
def names(fixtures):
    return json.loads((fixtures / "dune" / "golden.json").read_text())["state_dict"]


def build(**changes):
    settings = {"dim": 48, "depth": 3, "num_heads": 3, "table_side": 5, "position_resize": "offset", "mask_token": True}
    return DinoViT(**(settings | changes)).eval()


@pytest.fixture(scope="module")
def encoder(names):
    model = build()
    family = checkpoints.load_encoder(model, {name: seeded_tensor(name, tuple(shape)) for name, shape in names})
    assert family == "dune"
    return model


def assert_close(found, recorded):
    torch.testing.assert_close(found, recorded, rtol=1e-4, atol=5e-5)


@torch.no_grad()
def test_tokens_agree_on_a_grid_that_resizes_the_positions(encoder, golden):
    images = golden["images_normalised"]
    tokens = encoder(images)
    assert_close(tokens.cls, golden["cls"])
    assert_close(tokens.registers, golden["registers"])
    assert_close(tokens.patches, golden["patch"])
    before = encoder(images, normed=False)
    assert_close(torch.cat([before.cls[:, None], before.registers, before.patches], dim=1), golden["prenorm"])


@torch.no_grad()
@pytest.mark.parametrize("case", ["native", "larger"])
def test_patches_agree_on_the_table_s_own_grid_and_on_a_larger_one(encoder, golden, case):
    assert_close(encoder(golden[f"{case}.images_normalised"]).patches, golden[f"{case}.patch"])


@torch.no_grad()
def test_levels_in_between_agree(encoder, golden):
    for index, level in enumerate(encoder.intermediate(golden["images_normalised"], [0, 2])):
        assert_close(level.patches, golden[f"intermediate.{index}.patch"])
        assert_close(level.cls, golden[f"intermediate.{index}.cls"])


@torch.no_grad()
def test_the_whole_checkpoint_gives_its_encoder_alone(names, golden):
    weights = {f"encoder.{name}": seeded_tensor(f"encoder.{name}", tuple(shape)) for name, shape in names}
    weights["projectors.mast3r.0.weight"] = torch.zeros(3)
    model = build()
    checkpoints.load_encoder(model, weights)
    tokens = model(golden["images_normalised"], normed=False)
    assert_close(torch.cat([tokens.cls[:, None], tokens.patches], dim=1), golden["full.encoder_output"])


@torch.no_grad()
def test_the_other_resize_recipe_differs_only_where_the_table_is_resized(encoder, golden):
    other = build(position_resize="antialias")
    other.load_state_dict(encoder.state_dict())
    native = golden["native.images_normalised"]
    assert torch.equal(other(native).patches, encoder(native).patches)
    wide = golden["larger.images_normalised"]
    assert (other(wide).patches - encoder(wide).patches).abs().max() > 1e-3


def test_the_small_encoder_has_the_manifest_s_entries(fixtures):
    manifest = json.loads((fixtures / "dune" / "manifest.json").read_text())
    model = build(dim=384, depth=12, num_heads=6, table_side=32)
    assert sum(parameter.numel() for parameter in model.parameters()) == manifest["parameter_count"]
    weights = {name: torch.zeros(shape) for name, shape, _ in manifest["entries"]}
    checkpoints.load_encoder(model, weights)
