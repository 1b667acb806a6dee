"""Wrapping, training and merging, in every mode that training has."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from distill3d import models
from distill3d.adapters import RULES, adapter_state, adapters_off, add_lora, lora_layers, merge, remove
from distill3d.adapters.lora import find_layers
from distill3d.errors import ConfigError
from tests.adapters.helpers import QKV, WEIGHT_RULES, adapted_encoder, make_encoder, some_tokens

EVERYWHERE = r"(attn\.(qkv|proj)|mlp\.fc[12])"


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "activation_qkv"])
def test_the_start_changes_nothing_bit_for_bit(rule):
    tokens = some_tokens()
    before = make_encoder()(tokens)
    assert torch.equal(adapted_encoder(rule, size=0)(tokens), before)


def test_the_start_of_the_released_rule_changes_no_more_than_its_epsilon():
    tokens = some_tokens()
    assert torch.allclose(adapted_encoder("activation_qkv", size=0)(tokens), make_encoder()(tokens), rtol=0, atol=3e-6)


@pytest.mark.parametrize("rule", WEIGHT_RULES)
def test_merged_equals_adapted_and_is_the_plain_network_again(rule):
    model, tokens = adapted_encoder(rule), some_tokens()
    adapted = model(tokens)
    assert not torch.allclose(adapted, make_encoder()(tokens), atol=1e-2)
    names = merge(model)
    assert names == ("blocks.0.attn.qkv", "blocks.1.attn.qkv")
    assert torch.allclose(model(tokens), adapted, atol=1e-5)
    assert model.state_dict().keys() == make_encoder().state_dict().keys()
    assert all(type(model.get_submodule(name)) is nn.Linear for name in names)


@pytest.mark.parametrize("rule", ["frobenius", "per_row", "per_qkv_frobenius", "spectral"])
def test_a_merged_weight_is_as_long_as_its_base(rule):
    model = adapted_encoder(rule, size=3.0)
    for name, layer in lora_layers(model).items():
        base, merged = layer.weight.detach(), layer.merged_weight()
        lengths = {
            "frobenius": lambda weight: weight.norm(),
            "per_row": lambda weight: weight.norm(dim=1),
            "per_qkv_frobenius": lambda weight: weight.view(3, -1).norm(dim=1),
            "spectral": lambda weight: torch.linalg.svdvals(weight)[0],
        }[rule]
        assert torch.allclose(lengths(merged), lengths(base), rtol=1e-5), name


def test_the_released_rule_gives_every_token_the_length_of_the_base():
    model, tokens = adapted_encoder("activation_qkv", size=3.0), some_tokens()
    layer = lora_layers(model)["blocks.0.attn.qkv"]
    adapted = layer(tokens).unflatten(-1, (3, -1)).norm(dim=-1)
    with adapters_off(model):
        base = layer(tokens).unflatten(-1, (3, -1)).norm(dim=-1)
    assert torch.allclose(adapted, base, rtol=1e-5)


def test_the_released_rule_cannot_be_merged_and_says_why():
    model = adapted_encoder("activation_qkv")
    with pytest.raises(ConfigError, match="every token by a factor of its own"):
        merge(model)
    assert lora_layers(model)


@pytest.mark.parametrize("rule", RULES)
def test_only_adapters_learn_and_both_matrices_do(rule):
    model = adapted_encoder(rule)
    model(some_tokens()).square().mean().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == set(adapter_state(model))
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == learning
    assert all(tensor.grad.isfinite().all() and tensor.grad.abs().max() > 0 for tensor in adapter_state(model).values())


@pytest.mark.parametrize("rule", RULES)
def test_off_and_removed_are_the_base_bit_for_bit(rule):
    model, tokens = adapted_encoder(rule), some_tokens()
    before = make_encoder()(tokens)
    with adapters_off(model):
        assert torch.equal(model(tokens), before)
    assert not torch.equal(model(tokens), before)
    remove(model)
    assert torch.equal(model(tokens), before)
    assert not lora_layers(model)


@pytest.mark.parametrize("rule", RULES)
def test_recomputed_activations_give_the_same_gradients(rule):
    tokens, gradients = some_tokens(), []
    for again in (False, True):
        model = adapted_encoder(rule)
        out = tokens
        for block in model.blocks:
            out = checkpoint(block, out, use_reentrant=False) if again else block(out)
        model.norm(out).square().sum().backward()
        gradients.append([tensor.grad for tensor in adapter_state(model).values()])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_under_autocast_the_layers_are_bf16_and_the_norms_are_not(rule):
    tokens, model = some_tokens(), adapted_encoder(rule)
    exact = model(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer = lora_layers(model)["blocks.0.attn.qkv"]
        assert layer(tokens).dtype == torch.bfloat16
        found = model(tokens)
    found.float().square().mean().backward()
    assert torch.allclose(found.float(), exact, atol=0.15)
    assert all(tensor.grad.dtype == torch.float32 for tensor in adapter_state(model).values())
    start = adapted_encoder(rule, size=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(start(tokens), make_encoder()(tokens))


@pytest.mark.parametrize("rule", ["frobenius", "per_row", "spectral", "none"])
@pytest.mark.parametrize("targets", [r"attn\.proj", r"mlp\.fc[12]", EVERYWHERE])
def test_other_layers_of_an_encoder_take_the_same_adapters(rule, targets):
    model, tokens = adapted_encoder(rule, targets=targets), some_tokens()
    adapted = model(tokens)
    merge(model)
    assert torch.allclose(model(tokens), adapted, atol=2e-5)


@pytest.mark.parametrize("rule", ["activation_qkv", "per_qkv_frobenius"])
def test_rules_of_q_k_and_v_are_refused_where_there_are_none(rule):
    model = make_encoder()
    with pytest.raises(ConfigError, match=r"blocks.0.attn.proj goes from 24 to 24 channels.*frobenius or per_row"):
        add_lora(model, EVERYWHERE, renormalise=rule)
    assert not lora_layers(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_pattern_that_finds_nothing_is_refused_with_examples():
    with pytest.raises(ConfigError, match=r"No linear layer of Encoder is called 'qkw'.*blocks.0.attn.qkv"):
        add_lora(make_encoder(), "qkw")
    with pytest.raises(ConfigError, match="no regular expression"):
        add_lora(make_encoder(), "(")
    model = adapted_encoder(None)
    with pytest.raises(ConfigError, match=r"blocks.0.attn.qkv and 1 others carry adapters already"):
        add_lora(model, QKV)


def test_without_adapters_there_is_nothing_to_merge_or_remove():
    for function in (merge, remove):
        with pytest.raises(ConfigError, match="carries no adapters"):
            function(make_encoder())


def test_the_same_seed_draws_the_same_adapters_and_another_others():
    draws = [
        adapter_state(adapted_encoder(None, generator=torch.Generator().manual_seed(seed)))["blocks.0.attn.qkv.lora_A"]
        for seed in (3, 3, 4)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_state_dict_gains_the_adapters_and_keeps_every_other_name():
    before, after = make_encoder().state_dict(), adapted_encoder("frobenius").state_dict()
    assert set(after) - set(before) == set(adapter_state(adapted_encoder("frobenius")))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_copy_of_an_adapted_network_is_independent():
    model = adapted_encoder("frobenius")
    other = copy.deepcopy(model)
    with torch.no_grad():
        lora_layers(other)["blocks.0.attn.qkv"].lora_B.zero_()
    assert not torch.equal(model(some_tokens()), other(some_tokens()))


@pytest.mark.parametrize("name", ["dust3r", "mast3r", "cut3r", "fast3r", "vggt", "pi3", "distill3r"])
def test_the_targets_of_a_base_are_the_qkv_of_its_image_encoder_alone(name):
    spec = models.get(name)
    tiny = [config for variant, config in spec.variants.items() if "tiny" in variant]
    assert tiny
    for config in tiny:
        model = spec.build(config)
        names = find_layers(model, spec.lora_targets)
        assert names == tuple(f"encoder.blocks.{index}.attn.qkv" for index in range(len(model.encoder.blocks)))
