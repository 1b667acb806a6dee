"""Which device computes, and in which precision its layers do. Light on imports, for configurations and `--help`."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, get_args

from distill3d.errors import ConfigError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16"]
"""auto: bf16 where an accelerator has it, fp32 otherwise. Points, poses, losses and metrics are float32 in each."""


def choose_device(name: str, local_rank: int = 0) -> "torch.device":
    """The device of a name; "auto" is the accelerator of this process if there is one, else the CPU.

    Raises:
        ConfigError: there is no such device here.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return torch.device("cpu") if accelerator is None else torch.device(accelerator.type, local_rank)
    here = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    if name.split(":")[0] not in here:
        raise ConfigError(f"device is {name}, but this machine has {' and '.join(here)}. Set device to auto.")
    device = torch.device(name)
    if device.type != "cpu" and ":" not in name:
        device = torch.device(device.type, local_rank)
    return device


def autocast_dtype(precision: str, device: "torch.device") -> "torch.dtype | None":
    """The type that layers compute in, or None for plain float32; see `Precision`.

    Raises:
        ConfigError: there is no such precision.
    """
    import torch

    if precision not in get_args(Precision):
        raise ConfigError(f"precision is {precision!r}, expected one of {', '.join(get_args(Precision))}.")
    if precision == "fp32" or (precision == "auto" and device.type == "cpu"):
        return None
    supported = getattr(torch.get_device_module(device), "is_bf16_supported", None)
    if precision == "auto" and (supported is None or not supported()):
        return None
    return torch.bfloat16


def autocast(precision: str, device: "torch.device") -> AbstractContextManager[None]:
    """A block in which layers compute in that precision.

    Raises:
        ConfigError: there is no such precision.
    """
    import torch

    dtype = autocast_dtype(precision, device)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
