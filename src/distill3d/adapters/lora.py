"""Low-rank adapters on finished networks, renormalised so that they cannot change how long features are (Fin3R)."""

import contextlib
import logging
import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from distill3d.adapters.config import DEFAULT_RULE, LoraConfig, Rule, rule_named
from distill3d.adapters.rules import require_rule_fits, rescale_tokens, weight_factor
from distill3d.errors import ConfigError

logger = logging.getLogger(__name__)

INITIAL_SEED = 0
"""Draws the first matrices where no generator is given, so that results repeat."""
SHOWN = 5
"""Layers that an error lists."""


class LoraLinear(nn.Module):
    """A frozen linear layer and its low-rank change; knows nothing of the network around it.

    The weight and bias keep the names they had, so a state dict gains `lora_A` and `lora_B` and loses nothing.
    """

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float, rule: Rule, generator: torch.Generator) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.rank, self.alpha, self.rule = rank, alpha, rule
        self.enabled = True
        """Off: the layer is its base. See `adapters_off`."""
        self.weight, self.bias = base.weight, base.bias
        # As peft and Fin3R start: A uniform, B zero. Drawn on the CPU, so that every device starts alike.
        first = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
        self.lora_A = nn.Parameter(first.to(base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))

    @property
    def scaling(self) -> float:
        """Of B A."""
        return self.alpha / self.rank

    def forward(self, tokens: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """What the merged layer would give, without merging; with B = 0 the base's own, bit for bit.

        ("activation_qkv" keeps that within 1e-6, as released.)
        """
        base = F.linear(tokens, self.weight, self.bias)
        if not self.enabled:
            return base
        change = F.linear(F.linear(tokens, self.lora_A.to(tokens.dtype)), self.lora_B.to(tokens.dtype))
        adapted = base + self.scaling * change.to(base.dtype)
        if self.rule == "none":
            return adapted
        if self.rule == "activation_qkv":
            return rescale_tokens(base, adapted)
        factor = weight_factor(self.rule, self.weight, self.lora_A, self.lora_B, self.scaling)
        # The bias is no part of the weight: what the factor did to it is put back.
        kept = factor.new_zeros(1) if self.bias is None else (1 - factor) * self.bias
        return torch.addcmul(kept, adapted.to(factor.dtype), factor).to(adapted.dtype)

    @torch.no_grad()
    def merged_weight(self) -> Float[Tensor, "out in"]:
        """The one weight that does the same; computed in float64, in the precision of the base.

        Raises:
            ConfigError: the rule depends on the token.
        """
        if self.rule == "activation_qkv":
            raise ConfigError(NOT_MERGEABLE)
        weight, first, second = self.weight.double(), self.lora_A.double(), self.lora_B.double()
        total = weight + self.scaling * second @ first
        factor = weight_factor(self.rule, self.weight, self.lora_A, self.lora_B, self.scaling)
        return (factor.double()[:, None] * total).to(self.weight.dtype)

    def extra_repr(self) -> str:
        """Shape and rule, for `print(model)`."""
        return f"{self.in_features} -> {self.out_features}, rank {self.rank}, alpha {self.alpha:g}, {self.rule}"


NOT_MERGEABLE = (
    "activation_qkv rescales q, k and v of every token by a factor of its own, so no single weight does the same: it "
    "can be neither merged nor exported. Keep the adapter beside its base, or train with a weight rule (frobenius)."
)


def add_lora(
    model: nn.Module,
    targets: str,
    rank: int = 8,
    alpha: float = 8,
    renormalise: str | None = DEFAULT_RULE,
    *,
    generator: torch.Generator | None = None,
) -> tuple[str, ...]:
    """Wrap linear layers of a network; everything but the adapters stops learning. Nothing changes until B moves.

    Args:
        model: changed in place.
        targets: a regular expression for whole dotted names, or for their ends from some dot on: `attn\\.qkv`.
        rank: of the change.
        alpha: the change is scaled by alpha / rank.
        renormalise: a rule of `adapters.rules` or a synonym; "matrix" is frobenius, "row" per_row, None plain LoRA.
        generator: draws the first matrices; a fixed seed if None.

    Returns:
        The names of the wrapped layers.

    Raises:
        ConfigError: the pattern finds no linear layer, finds one that is adapted already, or the rule does not fit it.
    """
    rule = rule_named(renormalise)
    LoraConfig(targets=targets, rank=rank, alpha=alpha, renormalise=renormalise)
    names = find_layers(model, targets)
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        require_rule_fits(rule, name, layer.out_features, layer.in_features)
    generator = generator or torch.Generator().manual_seed(INITIAL_SEED)
    model.requires_grad_(False)
    for name in names:
        layer = model.get_submodule(name)
        model.set_submodule(name, LoraLinear(layer, rank=rank, alpha=alpha, rule=rule, generator=generator))  # type: ignore[arg-type]
    return names


def find_layers(model: nn.Module, targets: str) -> tuple[str, ...]:
    """Names of the linear layers that a pattern means; see `add_lora`.

    Raises:
        ConfigError: none, or one that is adapted already.
    """
    try:
        pattern = re.compile(rf"(?:.*\.)?(?:{targets})")
    except re.error as error:
        raise ConfigError(f"{targets!r} is no regular expression ({error}). Try one like 'attn\\.qkv'.") from error
    found = {name: module for name, module in model.named_modules() if pattern.fullmatch(name)}
    if adapted := [name for name, module in found.items() if isinstance(module, LoraLinear)]:
        raise ConfigError(
            f"{adapted[0]} and {len(adapted) - 1} others carry adapters already. Merge or remove them first."
        )
    linear = tuple(name for name, module in found.items() if isinstance(module, nn.Linear))
    if not linear:
        known = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        raise ConfigError(
            f"No linear layer of {type(model).__name__} is called {targets!r}. It has {len(known)} of them, e.g. "
            f"{', '.join(known[:SHOWN])}."
        )
    return linear


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers of a network by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The matrices of all adapters by the names that a state dict gives them."""
    layers = lora_layers(model)
    return {f"{name}.{leaf}": getattr(layer, leaf) for name, layer in layers.items() for leaf in ("lora_A", "lora_B")}


@contextlib.contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Inside the block the network is its frozen base."""
    layers = lora_layers(model).values()
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.enabled = was


def merge(model: nn.Module) -> tuple[str, ...]:
    """Put the adapters into the weights, in place: the network is as fast and as large as its base again.

    Returns:
        The names of the layers that changed.

    Raises:
        ConfigError: there are no adapters, or their rule cannot be merged; then nothing has changed.
    """
    return _replace(model, {name: layer.merged_weight() for name, layer in _present(model).items()})


def remove(model: nn.Module) -> tuple[str, ...]:
    """Take the adapters off, in place: the network is its base again, bit for bit.

    Raises:
        ConfigError: there are no adapters.
    """
    return _replace(model, {name: layer.weight.detach() for name, layer in _present(model).items()})


def _present(model: nn.Module) -> dict[str, LoraLinear]:
    layers = lora_layers(model)
    if not layers:
        raise ConfigError(f"This {type(model).__name__} carries no adapters. Add some, or load an adapter file.")
    return layers


def _replace(model: nn.Module, weights: dict[str, Tensor]) -> tuple[str, ...]:
    for name, weight in weights.items():
        layer: Any = model.get_submodule(name)
        with torch.device("meta"):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        plain.weight = nn.Parameter(weight, requires_grad=False)
        plain.bias = layer.bias
        model.set_submodule(name, plain.train(layer.training))
    return tuple(weights)
