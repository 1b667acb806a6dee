"""The rules that keep an adapted layer as long as its base: what is held fixed, and how its factor is found.

With W the frozen weight, D = scaling * B A the low-rank change and |.| the norm of a rule, the weight rules use

    W' = (W + D) |W| / |W + D|        (Fin3R, overview)

"activation_qkv", the rule of the released code, rescales what the layer gives instead: token by token, and q, k and v
apart. It depends on the input, so it can be neither merged nor exported.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.adapters.config import Rule
from distill3d.errors import ConfigError

ACTIVATION_EPS = 1e-6
"""Added to the new norm alone, as released."""
POWER_STEPS = 16
"""Rounds of the subspace iteration behind "spectral"."""
POWER_WIDTH = 4
"""Directions of the input that it follows besides those of the adapter."""


def require_rule_fits(rule: Rule, layer: str, out_features: int, in_features: int) -> None:
    """Refuse a rule that speaks of q, k and v for a layer that does not hold them.

    Raises:
        ConfigError: the layer is no fused projection of queries, keys and values.
    """
    if rule in ("activation_qkv", "per_qkv_frobenius") and out_features != 3 * in_features:
        raise ConfigError(
            f"{rule} cuts a layer into queries, keys and values, but {layer} goes from {in_features} to "
            f"{out_features} channels, so it holds no such three. Choose frobenius or per_row for it."
        )


def weight_factor(
    rule: Rule,
    weight: Float[Tensor, "out in"],
    lora_a: Float[Tensor, "rank in"],
    lora_b: Float[Tensor, "out rank"],
    scaling: float,
) -> Float[Tensor, " groups"]:
    """|W| / |W + D| in float32, differentiable in both matrices of the adapter: one number, or one for each row.

    W + D is never formed: row by row |W + D|^2 = |W|^2 + 2 <W, D> + |D|^2, and both last terms need no more than
    W A^T and A A^T. Where B is 0 they are exactly 0 and the factor is exactly 1.

    Raises:
        ConfigError: "activation_qkv", which has no factor of its weight.
    """
    if rule == "activation_qkv":
        raise ConfigError("activation_qkv rescales every token by a factor of its own; its weight has none.")
    with torch.autocast(weight.device.type, enabled=False):
        weight, lora_a, lora_b = weight.float(), lora_a.float(), lora_b.float()
        if rule == "none":
            return weight.new_ones(1)
        if rule == "spectral":
            return _spectral_factor(weight, lora_a, scaling * lora_b)
        before, change = _squared_rows(weight, lora_a, scaling * lora_b)
        if rule == "frobenius":
            before, change = before.sum()[None], change.sum()[None]
        elif rule == "per_qkv_frobenius":
            before, change = before.view(3, -1).sum(dim=1), change.view(3, -1).sum(dim=1)
        # A row of zeros has no length to keep: it stays as the adapter makes it.
        empty = before == 0
        ratio = (change / torch.where(empty, 1.0, before)).clamp(min=-1 + 1e-6)
        factor = torch.where(empty, 1.0, torch.rsqrt(1 + ratio))
        return factor.repeat_interleave(len(weight) // 3) if rule == "per_qkv_frobenius" else factor


def _squared_rows(weight: Tensor, lora_a: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """|W|^2 of every row, and what the change adds to it; `change` A is the adapter's part of the weight."""
    crossed = (change * (weight @ lora_a.T)).sum(dim=1)
    own = ((change @ (lora_a @ lora_a.T)) * change).sum(dim=1)
    return weight.square().sum(dim=1), 2 * crossed + own


def _spectral_factor(weight: Tensor, lora_a: Tensor, change: Tensor) -> Float[Tensor, " 1"]:
    before, after = (_largest_singular_value(weight, lora_a, part) for part in (torch.zeros_like(change), change))
    return (before / after.clamp(min=1e-30))[None]


def _largest_singular_value(weight: Tensor, lora_a: Tensor, change: Tensor) -> Float[Tensor, ""]:
    """Of W + change A, by subspace iteration from the same start every time: a state would break resuming.

    The gradient is exact where the iteration has converged: that of |(W + change A) v| with v held fixed.
    """

    def forward(vectors: Tensor) -> Tensor:
        return weight @ vectors + change @ (lora_a @ vectors)

    with torch.no_grad():
        # A change that has grown large looks along the rows of A: they are part of the start.
        rows = weight[weight.square().sum(dim=1).topk(min(POWER_WIDTH, len(weight))).indices]
        vectors = torch.linalg.qr(torch.cat([rows, lora_a]).T).Q
        for _ in range(POWER_STEPS):
            seen = forward(vectors)
            vectors = torch.linalg.qr(weight.T @ seen + lora_a.T @ (change.T @ seen)).Q
        seen = forward(vectors)
        best = torch.linalg.eigh(seen.T @ seen).eigenvectors[:, -1]
        vector = vectors @ best
    value: Tensor = torch.linalg.vector_norm(forward(vector))
    return value


def rescale_tokens(
    base: Float[Tensor, "*batch out"], adapted: Float[Tensor, "*batch out"]
) -> Float[Tensor, "*batch out"]:
    """Give the q, k and v of each adapted token the length that the base gives them (Fin3R, released code).

    Norms are taken in float32 and carry gradient, those of the base too. Equal inputs come back within 1e-6.
    """
    with torch.autocast(base.device.type, enabled=False):
        old, new = (part.float().reshape(*part.shape[:-1], 3, -1) for part in (base, adapted))
        length = torch.linalg.vector_norm(old, dim=-1, keepdim=True)
        factor = length / (torch.linalg.vector_norm(new, dim=-1, keepdim=True) + ACTIVATION_EPS)
        rescaled: Tensor = (new * factor).flatten(-2).to(adapted.dtype)
        return rescaled
