"""What every loss gives: one number to minimise, and what it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """What a loss is made of."""

    total: Float[Tensor, ""]
    """The weighted sum, to call `backward` on."""
    terms: Mapping[str, Float[Tensor, ""]]
    """The terms before their factors, without gradient, by name; NaN for one that this batch says nothing about."""
