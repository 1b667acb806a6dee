"""Muon, orthogonalising in float32 on a CPU: `torch.optim.Muon` rounds to bfloat16, which most CPUs only emulate.

Where a CPU has no instructions for bfloat16, a product of two small matrices takes many times as long as in float32,
and the optimiser longer than the network. In everything else this is what `torch.optim.Muon` does.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic: singular values end between about 0.7 and 1.2 after five steps (Jordan et al. 2024)."""
STEPS = 5
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov) whose matrices are orthogonalised, at steps as large as AdamW's (0.2 sqrt(longer side))."""

    def __init__(
        self, params: Iterable[dict[str, Any]], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        """Groups of matrices; `lr` and `weight_decay` where a group does not say."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure: nothing here needs one
        """Move the matrices that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                momentum: Tensor = state["momentum_buffer"]
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalise(parameter.grad.lerp(momentum, group["momentum"]))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * 0.2 * math.sqrt(max(parameter.shape)))


def orthogonalise(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The nearest matrix with singular values about 1: Newton-Schulz steps on the shorter side's Gram matrix."""
    a, b, c = COEFFICIENTS
    x = matrix.float() if matrix.device.type == "cpu" else matrix.bfloat16()
    x = x.T if len(matrix) > matrix.shape[1] else x
    x = x / x.norm().clamp(min=EPS)  # then no singular value exceeds 1
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if len(matrix) > matrix.shape[1] else x
