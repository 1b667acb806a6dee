"""MASt3R against recordings of the reference code under seeded weights, and the list of its official weights."""

import json

import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from distill3d.models.mast3r import Mast3RConfig
from tests.parity.official import fill_seeded, relative, relative_points, relative_values, shapes_of_manifest, watch

SPEC = models.get("mast3r")
TINY = Mast3RConfig(encoder_dim=64, encoder_depth=2, encoder_heads=4, decoder_dim=48, decoder_heads=4)


@pytest.fixture(scope="module")
def folder(fixtures):
    return fixtures / "mast3r"


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


@torch.no_grad()
def test_a_pair_of_two_sizes_agrees_at_every_probe(model, golden):
    head = model.heads[0]
    with watch({"encoder": model.encoder, "decoder": model.decoder, "local": head.local_features,
                "raw1": head.dpt, "raw2": model.heads[1].dpt}) as seen:  # fmt: skip
        views = model.compare((golden["A.img1"] + 1) / 2, (golden["A.img2"] + 1) / 2)
    found = {"A.localfeat1": seen["local"][0][:, :4]}
    errors = {}
    for index, view in enumerate(views):
        name = index + 1
        found[f"A.enc{name}"] = seen["encoder"][index].tokens
        found |= {f"A.dec{name}.{level}": seen["decoder"][0][index][level] for level in (0, 6, 9, 12)}
        found[f"A.raw{name}"] = seen[f"raw{name}"][0]
        found[f"A.conf{name}"] = view.confidence_world[:, 0]
        found[f"A.desc_conf{name}"] = view.confidence_descriptors[:, 0]
        errors[f"A.pts3d{name}"] = relative_points(view.pointmap_world[:, 0], golden[f"A.pts3d{name}"])
        errors[f"A.desc{name}"] = relative_points(view.descriptors[:, 0], golden[f"A.desc{name}"])
    errors |= agreement(found, golden)
    assert max(errors.values()) < 1e-4, errors
    assert {*errors, "A.img1", "A.img2"} == {name for name in golden if name.startswith("A.")}


def test_the_full_size_model_maps_one_to_one_onto_the_official_entries(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    expected = shapes_of_manifest(folder / "manifest.json")
    with torch.device("meta"):
        full = SPEC.build(SPEC.variants["base"])
    official = checkpoints.to_official(full, SPEC)
    assert {name: list(tensor.shape) for name, tensor in official.items()} == expected
    assert len(expected) == manifest["n_entries"] == 1017
    assert sum(parameter.numel() for parameter in full.parameters()) == manifest["parameter_count"]
    once = {
        name: torch.empty(expected[name], device="meta") for name in checkpoints.to_official(full, SPEC, aliases=False)
    }
    checkpoints.load_official(full, SPEC, once, source="the manifest")


def test_official_weights_come_out_as_they_went_in(model):
    official = {name: tensor.clone() for name, tensor in checkpoints.to_official(model, SPEC).items()}
    other = SPEC.build(TINY)
    checkpoints.load_official(other, SPEC, official, source="x")
    again = checkpoints.to_official(other, SPEC)
    assert official.keys() == again.keys()
    assert all(torch.equal(official[name], again[name]) for name in official)
