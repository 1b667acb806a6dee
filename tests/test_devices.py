import pytest
import torch

from distill3d.devices import autocast, autocast_dtype, choose_device
from distill3d.errors import ConfigError

CPU = torch.device("cpu")


def test_a_cpu_computes_in_float32_unless_told_otherwise():
    assert autocast_dtype("auto", CPU) is None
    assert autocast_dtype("fp32", CPU) is None
    assert autocast_dtype("bf16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_layers_compute_in_the_precision_asked_for(precision, expected):
    layer = torch.nn.Linear(2, 2)
    with autocast(precision, CPU):
        assert layer(torch.ones(1, 2)).dtype == expected


def test_an_unknown_precision_or_device_is_refused_with_what_there_is():
    with pytest.raises(ConfigError, match=r"'fp16'.*bf16"):
        autocast("fp16", CPU)
    if not torch.accelerator.is_available():
        with pytest.raises(ConfigError, match="this machine has cpu"):
            choose_device("cuda")
    assert choose_device("cpu") == CPU
