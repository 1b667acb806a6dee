"""What every network keeps to in its forward pass: no float64, no numpy, float32 results whatever the autocast."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distill3d import models
from distill3d.types import map_tensors

TINY = [(name, key) for name in models.names() for key in models.get(name).variants if key.startswith("tiny")]


class RefuseDouble(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        double = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64]
        assert not double, f"{func} made float64, which Apple silicon does not have"
        return out


def test_the_guard_sees_float64():
    with pytest.raises(AssertionError, match="float64"), RefuseDouble():
        torch.ones(2).double()


@pytest.fixture
def no_numpy(monkeypatch):
    def refuse(*_):
        raise AssertionError("a tensor went to numpy in a forward pass")

    monkeypatch.setattr(torch.Tensor, "numpy", refuse)
    monkeypatch.setattr(torch.Tensor, "__array__", refuse)


@pytest.mark.parametrize(("name", "variant"), TINY)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_forward_pass_needs_no_float64_and_no_numpy_and_gives_float32(name, variant, precision, no_numpy):
    spec = models.get(name)
    model = spec.build(spec.variant(variant)).eval()
    images = torch.rand(1, 2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    autocast = torch.autocast("cpu", precision, enabled=precision != torch.float32)
    fewer = {"num_tokens": 64} if spec.views == "single" and hasattr(model, "num_tokens") else {}  # MoGe: quicker
    with torch.no_grad(), autocast, RefuseDouble():
        prediction = model(images, **fewer)
    kept = []
    map_tensors(prediction, lambda tensor: kept.append(tensor) or tensor)
    floats = [tensor for tensor in kept if tensor.is_floating_point()]
    assert floats
    assert {tensor.dtype for tensor in floats} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in floats)
