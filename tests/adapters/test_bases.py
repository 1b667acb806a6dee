"""Every base that can be refined: stock peft reads its export, and its merged weights pass the official loader."""

import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from distill3d.adapters import add_lora, export_dora, lora_layers, merge
from distill3d.train.bases import BASES
from tests.adapters.helpers import WEIGHT_RULES, move

peft = pytest.importorskip("peft", reason="peft is not installed; it is only needed to test the export")


def make_base(name: str):
    spec = models.get(name)
    return spec.build(spec.variants["tiny"]).eval()


def adapted_base(name: str, rule: str):
    model = make_base(name)
    add_lora(model, models.get(name).lora_targets, 4, 8, rule)
    move(model, 0.1)
    return model.eval()


@pytest.mark.parametrize("rule", WEIGHT_RULES)
@pytest.mark.parametrize("name", sorted(BASES))
def test_stock_peft_computes_the_encoder_of_every_base(name, rule, tmp_path):
    model = adapted_base(name, rule)
    export_dora(tmp_path, model)
    loaded = peft.PeftModel.from_pretrained(make_base(name), str(tmp_path)).eval()
    layers = dict(loaded.base_model.model.named_modules())
    ours = lora_layers(model)
    assert ours
    for key, layer in ours.items():
        tokens = torch.randn(2, 5, layer.weight.shape[1], generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            expected, found = layer(tokens), layers[key](tokens)
        assert (expected - found).abs().max() < 1e-6 * max(1.0, float(expected.abs().max())), key
    side = 2 * (models.get(name).patch_size or 14)
    images = torch.rand(1, 2, 3, side, side, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole, theirs, start = model(images), loaded.base_model.model(images), make_base(name)(images)
    expected, found = whole.pointmap_world, theirs.pointmap_world
    assert not torch.equal(expected, start.pointmap_world)
    assert (expected - found).abs().max() < 1e-6 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("rule", WEIGHT_RULES)
@pytest.mark.parametrize("name", sorted(BASES))
def test_merged_weights_of_every_base_pass_the_official_loader_bit_for_bit(name, rule):
    spec, model = models.get(name), adapted_base(name, rule)
    merge(model)
    again = make_base(name)
    checkpoints.load_official(again, spec, checkpoints.to_official(model, spec), source="merged")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("name", sorted(BASES))
def test_an_exported_adapter_names_layers_that_the_official_network_has(name, tmp_path):
    spec = models.get(name)
    model = make_base(name)
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
