"""Networks whose weights are about to be overwritten, built without drawing random numbers for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class _NoDraws(TorchFunctionMode):
    """Leaves parameters as memory gave them where an initialisation would fill them; all else happens as ever.

    Only parameters: every one of them is part of the state dict, so a strict load overwrites it. Buffers, which may
    be computed and stored nowhere, are built as always.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")  # nn.init hands its tensor on by name
        if func in _DRAWS and isinstance(filled, nn.Parameter):
            return filled
        return func(*args, **kwargs)


_DRAWS = (
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    torch.Tensor.erfinv_,  # the costly half of trunc_normal_
    nn.init.uniform_,
    nn.init.normal_,
    nn.init.kaiming_uniform_,
)


def build_empty(build: Callable[[Any], nn.Module], config: Any) -> nn.Module:
    """A network whose parameters hold anything at all: for a strict load of everything right after.

    Much quicker for large networks; with the same weights loaded it equals one built the plain way.
    """
    with _NoDraws():
        return build(config)
