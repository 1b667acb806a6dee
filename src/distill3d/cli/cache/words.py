"""A summary in numbers as lines for people."""

from collections.abc import Mapping
from typing import Any


def told(summary: Mapping[str, Any]) -> str:
    """One line an entry; empty lists are left out."""
    return "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in summary.items() if value != [])
