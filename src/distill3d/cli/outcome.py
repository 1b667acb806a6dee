"""What a verb gives back to be printed, and how verbs read their arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tyro


@dataclass(frozen=True)
class Outcome:
    """The result of a command, for machines and for people."""

    data: Mapping[str, Any]
    text: str


def parse_command(
    function: Callable[..., Outcome], verb: str, arguments: Sequence[str], default: Any = None
) -> Outcome:
    """Call `function` with arguments read from its signature. Wrong arguments end the program with code 2."""
    options = {} if default is None else {"default": default}
    outcome = tyro.cli(function, prog=f"distill3d {verb}", args=list(arguments), **options)
    assert isinstance(outcome, Outcome)
    return outcome


def parse_subcommand(functions: Mapping[str, Callable[..., Outcome]], verb: str, arguments: Sequence[str]) -> Outcome:
    """As `parse_command`, for a verb with words after it: `distill3d cache build`."""
    outcome = tyro.extras.subcommand_cli_from_dict(dict(functions), prog=f"distill3d {verb}", args=list(arguments))
    assert isinstance(outcome, Outcome)
    return outcome
