"""Stock peft reads what we export and computes the same. The only file that imports peft: it takes seconds."""

import json

import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from distill3d.adapters import add_lora, export_dora
from distill3d.errors import ConfigError
from tests.adapters.helpers import WEIGHT_RULES, adapted_encoder, make_encoder, move, some_tokens

peft = pytest.importorskip("peft", reason="peft is not installed; it is only needed to test the export")


@pytest.mark.parametrize("rule", WEIGHT_RULES)
def test_stock_peft_gives_the_same_outputs(rule, tmp_path):
    model, tokens = adapted_encoder(rule), some_tokens()
    export_dora(tmp_path, model)
    loaded = peft.PeftModel.from_pretrained(make_encoder(), str(tmp_path)).eval()
    with torch.no_grad():
        ours, theirs = model(tokens), loaded(tokens)
        assert (ours - theirs).abs().max() < 1e-6 * max(1.0, float(ours.abs().max()))
        merged = loaded.merge_and_unload()(tokens)
    assert (ours - merged).abs().max() < 1e-5


def test_the_released_rule_is_refused_because_no_weight_does_the_same(tmp_path):
    with pytest.raises(ConfigError, match="neither merged nor exported"):
        export_dora(tmp_path, adapted_encoder("activation_qkv"))
    assert list(tmp_path.iterdir()) == []


def test_the_export_can_name_layers_as_the_official_network_does(tmp_path):
    spec = models.get("vggt")
    model = spec.build(spec.variants["tiny"])
    add_lora(model, spec.lora_targets)
    move(model, 0.1)
    export_dora(tmp_path, model, spec=spec)
    names = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert names[0] == "aggregator.patch_embed.blocks.0.attn.qkv"
    official = set(checkpoints.to_official(spec.build(spec.variants["tiny"]), spec))
    assert all(f"{name}.weight" in official for name in names)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 3 * len(names)
    assert f"base_model.model.{names[0]}.lora_magnitude_vector" in tensors
