"""The rules against recordings and against forming the sum, which they avoid."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from distill3d.adapters import RULES, LoraConfig, add_lora
from distill3d.adapters.config import rule_named
from distill3d.adapters.rules import weight_factor
from distill3d.errors import ConfigError
from tests.adapters.helpers import WEIGHT_RULES


@pytest.fixture(scope="module")
def golden(fixtures):
    recorded = load_file(fixtures / "fin3r" / "golden.safetensors")
    return {name.removeprefix("math."): value for name, value in recorded.items() if name.startswith("math.")}


@pytest.fixture
def layer(golden, request):
    base = nn.Linear(24, 72)
    base.weight.data, base.bias.data = golden["W"].clone(), golden["bias"].clone()
    model = nn.Sequential(base)
    add_lora(model, "0", rank=4, alpha=8, renormalise=request.param)
    model[0].lora_A.data, model[0].lora_B.data = golden["A"].clone(), golden["B"].clone()
    return model[0]


def recorded_name(rule):
    return "plain" if rule == "none" else rule


@pytest.mark.parametrize("layer", RULES, indirect=True, ids=RULES)
def test_outputs_merged_weights_and_gradients_are_as_recorded(layer, golden):
    name = recorded_name(layer.rule)
    output = layer(golden["x"])
    assert torch.allclose(output, golden[f"{name}_output"], atol=1e-5)
    if layer.rule != "activation_qkv":
        assert torch.allclose(layer.merged_weight(), golden[f"{name}_merged"], atol=1e-6)
    if f"{name}_grad_A" in golden:
        (output * golden["probe"]).sum().backward()
        assert torch.allclose(layer.lora_A.grad, golden[f"{name}_grad_A"], rtol=1e-4, atol=2e-5)
        assert torch.allclose(layer.lora_B.grad, golden[f"{name}_grad_B"], rtol=1e-4, atol=2e-5)


def test_the_recording_has_gradients_of_three_rules(golden):
    assert {name.removesuffix("_grad_A") for name in golden if name.endswith("_grad_A")} == {
        "activation_qkv", "frobenius", "per_row",
    }  # fmt: skip


def plain_factor(rule, weight, first, second, scaling):
    """The definition, with the sum formed."""
    total = weight + scaling * second @ first

    def norms(matrix):
        if rule == "frobenius":
            return matrix.norm()[None]
        if rule == "spectral":
            return torch.linalg.svdvals(matrix)[:1]
        if rule == "per_row":
            return matrix.norm(dim=1)
        return matrix.view(3, -1).norm(dim=1).repeat_interleave(len(matrix) // 3)

    return torch.ones(1, dtype=weight.dtype) if rule == "none" else norms(weight) / norms(total)


@pytest.mark.parametrize("rule", WEIGHT_RULES)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([1e-3, 0.3, 3.0, 100.0]), rank=st.integers(1, 6))
def test_the_expansion_gives_what_forming_the_sum_gives(rule, seed, size, rank):
    generator = torch.Generator().manual_seed(seed)
    weight, first, second = (torch.randn(shape, generator=generator) for shape in ((18, 6), (rank, 6), (18, rank)))
    found = weight_factor(rule, weight, first, size * second, 0.5)
    expected = plain_factor(rule, weight.double(), first.double(), size * second.double(), 0.5)
    assert torch.allclose(found.double(), expected, rtol=1e-4)


@pytest.mark.parametrize("rule", WEIGHT_RULES)
def test_gradients_are_those_of_the_definition(rule):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(18, 6, generator=generator)
    pairs = []
    for function, dtype in ((weight_factor, torch.float32), (plain_factor, torch.float64)):
        first = torch.randn(2, 6, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        second = torch.randn(18, 2, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
        if rule == "none":
            assert not function(rule, weight.to(dtype), first, second, 0.5).requires_grad
            return
        probe = torch.arange(1.0, 19.0, dtype=dtype)
        (function(rule, weight.to(dtype), first, second, 0.5) * probe).sum().backward()
        pairs.append((first.grad, second.grad))
    for ours, theirs in zip(*pairs, strict=True):
        assert torch.allclose(ours.double(), theirs, rtol=2e-3, atol=1e-3)


def test_a_row_of_zeros_stays_as_the_adapter_makes_it():
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    first, second = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[2.0], [1.0]], requires_grad=True)
    factor = weight_factor("per_row", weight, first, second, 1.0)
    assert factor[0] == 1.0
    assert factor[1].item() == pytest.approx(5 / (16 + 16) ** 0.5)
    factor.sum().backward()
    assert first.grad.isfinite().all()
    assert second.grad.isfinite().all()


def test_a_change_that_erases_the_weight_gives_finite_numbers():
    weight = torch.eye(2)
    first, second = torch.eye(2, requires_grad=True), (-torch.eye(2)).requires_grad_()
    for rule in ("frobenius", "per_row", "spectral"):
        factor = weight_factor(rule, weight, first, second, 1.0)
        assert factor.isfinite().all(), rule


def test_names_and_synonyms_of_rules():
    assert rule_named("matrix") == "frobenius"
    assert rule_named("row") == "per_row"
    assert rule_named(None) == "none"
    assert all(rule_named(rule) == rule for rule in RULES)
    with pytest.raises(ConfigError, match=r"no renormalisation 'l2'; choose one of: frobenius"):
        rule_named("l2")


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"lora.rank is 0"):
        LoraConfig(rank=0)
    with pytest.raises(ConfigError, match=r"lora.alpha is -1"):
        LoraConfig(alpha=-1)
    with pytest.raises(ConfigError, match="no renormalisation"):
        LoraConfig(renormalise="full")
    with pytest.raises(ConfigError, match="every token by a factor of its own"):
        weight_factor("activation_qkv", torch.eye(3), torch.eye(3), torch.eye(3), 1.0)
