"""The encoder, alone and in the registered model, against recordings of DUNE under seeded weights."""

import json

import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from distill3d.nn.dino_vit import DinoViT
from tests.parity.official import fill_seeded, relative_points
from tests.parity.seeded_weights import seeded_tensor

SPEC = models.get("dune")


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


def in_unit_range(model, normalised):
    """Images that the model's own normalisation turns into the recorded ones."""
    return normalised * model.normalise.std + model.normalise.mean


@torch.no_grad()
def test_the_registered_model_gives_the_recorded_patches_as_descriptors(golden):
    model = fill_seeded(SPEC.build(SPEC.variants["tiny"]), SPEC)
    cases = (("images_normalised", "patch"), ("native.images_normalised", "native.patch"))
    for images, patches in (*cases, ("larger.images_normalised", "larger.patch")):
        descriptors = model(in_unit_range(model, golden[images])[None]).descriptors
        height, width = golden[images].shape[-2:]
        assert descriptors.shape[2:4] == (height // 14, width // 14)
        assert relative_points(descriptors[0].flatten(1, 2), golden[patches]) < 1e-5


@torch.no_grad()
def test_the_whole_model_gives_the_recorded_output_of_every_projector(golden):
    model = fill_seeded(SPEC.build(SPEC.variants["tiny_distillation"]), SPEC)
    images = in_unit_range(model, golden["images_normalised"])[None]
    tokens = model.encode(images, normed=False)
    output = torch.cat([tokens.cls[:, None], tokens.patches], dim=1)
    assert relative_points(output, golden["full.encoder_output"]) < 1e-5
    projected = model.project(images)
    assert {f"full.projector.{name}" for name in projected} == {name for name in golden if "full.projector." in name}
    for name, features in projected.items():
        assert relative_points(features, golden[f"full.projector.{name}"]) < 1e-4


VARIANTS = {
    "vitsmall_14_448": None,
    "vitsmall_14_336": "vitsmall_14_336_encoder",
    "vitbase_14_448": "vitbase_14_448_encoder",
    "vitbase_14_336": "vitbase_14_336_encoder",
    "vitsmall_14_448_distillation": "vitsmall_14_448_full_checkpoint",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_the_entries_of_its_file_and_no_other(fixtures, variant):
    manifest = json.loads((fixtures / "dune" / "manifest.json").read_text())
    listed = manifest["variants"][VARIANTS[variant]] if VARIANTS[variant] else manifest
    shapes = {name: shape for name, shape, _ in listed["entries"]}
    with torch.device("meta"):
        model = SPEC.build(SPEC.variants[variant])
    assert {name: list(value.shape) for name, value in checkpoints.to_official(model, SPEC).items()} == shapes
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    for prefix in ("", "module.", "module._orig_mod."):
        checkpoints.load_official(model, SPEC, {prefix + name: weights[name] for name in weights}, source="a file")


def test_an_encoder_takes_its_part_of_the_whole_file():
    whole, alone = (SPEC.build(SPEC.variants[name]) for name in ("tiny_distillation", "tiny"))
    fill_seeded(whole, SPEC, seed=1)
    checkpoints.load_official(alone, SPEC, checkpoints.to_official(whole, SPEC), source="dune.pth")
    assert all(
        torch.equal(value, whole.student.state_dict()[name]) for name, value in alone.encoder.state_dict().items()
    )


@pytest.mark.parametrize("variant", ["tiny", "tiny_distillation"])
def test_official_names_and_back_are_the_identity(variant):
    model, other = (SPEC.build(SPEC.variants[variant]) for _ in range(2))
    fill_seeded(model, SPEC, seed=2)
    checkpoints.load_official(other, SPEC, checkpoints.to_official(model, SPEC), source="test")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
