"""What is built without drawing equals what is built the plain way, once the weights are in."""

import pytest
import torch
from torch import nn

from distill3d import models
from distill3d.checkpoints import load_strict
from distill3d.checkpoints.build import build_empty

VARIANTS = [
    (name, variant) for name in models.names() for variant in models.get(name).variants if variant.startswith("tiny")
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_network_is_the_same_after_loading(name, variant):
    spec = models.get(name)
    plain = spec.build(spec.variant(variant))
    with torch.no_grad():
        for value in plain.parameters():
            value.normal_()
    weights = {key: value.clone() for key, value in plain.state_dict().items()}
    quick = build_empty(spec.build, spec.variant(variant))
    load_strict(quick, weights, source="test")
    for kind in ("named_parameters", "named_buffers"):
        expected, found = dict(getattr(plain, kind)()), dict(getattr(quick, kind)())
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
            assert found[key].requires_grad == value.requires_grad, key
    # Tensors that are neither (tables kept as plain attributes) are built alike as well.
    for (place, one), (_, other) in zip(plain.named_modules(), quick.named_modules(), strict=True):
        for key, value in vars(one).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(vars(other)[key], value), f"{place}.{key}"


def test_every_architecture_has_a_tiny_variant_to_compare():
    assert {name for name, _ in VARIANTS} == set(models.names())


def test_parameters_are_not_drawn_and_buffers_are():
    class Both(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("noise", torch.empty(5).normal_(), persistent=False)

    torch.manual_seed(3)
    expected = torch.empty(5).normal_()
    torch.manual_seed(3)
    assert torch.equal(build_empty(Both, None).noise, expected)  # the layer took no number from the generator
