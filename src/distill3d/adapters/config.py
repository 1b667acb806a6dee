"""How layers are adapted, and what the rules of renormalisation are called. No torch here."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from distill3d.errors import ConfigError

Rule = Literal["frobenius", "per_row", "per_qkv_frobenius", "spectral", "activation_qkv", "none"]
"""What keeps its length: the whole matrix, each row, the q, k and v blocks, the largest singular value; the q, k and v
of each token; or nothing (plain LoRA)."""
RULES: tuple[Rule, ...] = get_args(Rule)
SYNONYMS: dict[str | None, Rule] = {"matrix": "frobenius", "row": "per_row", None: "none"}
"""Other names of the same rules."""
DEFAULT_RULE: Rule = "frobenius"
"""For new training: it merges. Released files were trained with "activation_qkv"."""


def rule_named(name: str | None) -> Rule:
    """The rule of a name or synonym.

    Raises:
        ConfigError: there is none of that name.
    """
    found = SYNONYMS.get(name, name)
    if found not in RULES:
        raise ConfigError(
            f"There is no renormalisation {name!r}; choose one of: {', '.join(RULES)} "
            "(matrix = frobenius, row = per_row)."
        )
    return found


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """How layers are adapted."""

    targets: str | None = None
    """Pattern of the layers, a regular expression over their dotted names; None: those that the network proposes."""
    rank: int = 8
    """Of the change; Fin3R's."""
    alpha: float = 8.0
    """The change is scaled by alpha / rank; Fin3R's."""
    renormalise: str | None = DEFAULT_RULE
    """A rule of `adapters.rules`, or a synonym."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora.rank is {self.rank}, expected 1 or more.")
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"lora.alpha is {self.alpha}, expected a finite number above 0.")
        rule_named(self.renormalise)
