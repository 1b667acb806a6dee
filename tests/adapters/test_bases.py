"""What is merged or exported fits the official network of every base, and says the same."""

import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from distill3d.adapters import add_lora, export_dora, merge
from distill3d.train.bases import BASES
from distill3d.types import Prediction
from tests.adapters.helpers import move

OFFICIAL = [name for name in BASES if models.get(name).renames]


def tiny(spec):
    variant = next(key for key in spec.variants if key.startswith("tiny"))
    return spec.build(spec.variants[variant]).eval()


def says(model, views) -> Prediction:
    images = torch.rand(1, views, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(images)


def test_every_base_with_official_weights_is_looked_at():
    assert set(OFFICIAL) >= {"dust3r", "mast3r", "cut3r", "vggt", "fast3r", "pi3"}


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("rule", ["frobenius", "per_row", "spectral"])
def test_merged_weights_go_back_into_the_official_network(name, rule):
    spec = models.get(name)
    model = tiny(spec)
    plain = says(model, 2)
    add_lora(model, spec.lora_targets, renormalise=rule)
    move(model, 0.3)
    adapted = says(model, 2)
    merge(model)
    fresh = tiny(spec)
    checkpoints.load_official(fresh, spec, checkpoints.to_official(model, spec), source="merged")
    found, moved, off = says(fresh, 2), 0.0, 0.0
    for field in ("pointmap_world", "pointmap_camera", "depth"):
        before, ours, theirs = (getattr(prediction, field) for prediction in (plain, adapted, found))
        if ours is not None:
            moved = max(moved, float((ours - before).abs().max() / before.abs().max()))
            off = max(off, float((theirs - ours).abs().max() / before.abs().max()))
    assert moved > 1e-5
    assert off < 0.02 * moved


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_exported_adapter_names_layers_that_the_official_network_has(name, tmp_path):
    spec = models.get(name)
    model = tiny(spec)
    official = set(checkpoints.to_official(model, spec))
    add_lora(model, spec.lora_targets)
    move(model, 0.1)
    export_dora(tmp_path, model, spec=spec)
    layers = {
        key.removeprefix("base_model.model.").rsplit(".lora_", 1)[0]
        for key in load_file(tmp_path / "adapter_model.safetensors")
    }
    assert layers
    assert {f"{layer}.weight" for layer in layers} <= official
