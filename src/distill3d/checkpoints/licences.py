"""What weights may be used for: read off the name of their licence, looked up for official files, told at loading."""

import logging
from collections.abc import Iterable
from pathlib import Path

from distill3d.models import ModelSpec

logger = logging.getLogger(__name__)

_FREE = ("apache", "mit", "bsd", "cc0", "cc-by-4", "cc-by-sa")
_BOUND = ("non-commercial", "noncommercial", "-nc", "nc-", "research-only")
_CHOICE = " | "
_BOTH = " + "
_told: set[tuple[str, str]] = set()


def all_licences(licences: Iterable[str]) -> str:
    """The licence of what is made from several things: that of each."""
    return _BOTH.join(dict.fromkeys(licences))


def commercial_use(licence: str) -> bool | None:
    """Whether a licence is known to allow commercial use; None where its name does not tell."""
    if _BOTH in licence:
        allowed = [commercial_use(part) for part in licence.split(_BOTH)]
        return False if False in allowed else None if None in allowed else True
    plain = licence.lower().replace(" ", "-")
    if any(mark in plain for mark in _BOUND):
        return False
    stated = "(commercial-use-allowed" in plain and _CHOICE.strip() not in plain
    return True if stated or plain.startswith(_FREE) else None


def official_licence(spec: ModelSpec, *places: str) -> str:
    """The licence of official weights, by the hub id or file they come from.

    Args:
        spec: of the network; knows the licences of its published weights.
        places: the words by which they were asked for and the path they lie at. A published name that stands in one
            of them decides, the longest first.

    Returns:
        The licence; where nothing tells which of several weights these are, all that come into question.
    """
    if not spec.licences:
        return "unknown"
    for name in sorted(spec.licences, key=len, reverse=True):
        # A hub id as such, the folder of the hub's cache, or a file that was given the name of its weights.
        marks = (name, "models--" + name.replace("/", "--") + "/", Path(name).name)
        if any(place == marks[0] or marks[1] in place or Path(place).stem == Path(marks[2]).stem for place in places):
            return spec.licences[name]
    several = sorted(set(spec.licences.values()))
    if len(several) == 1:
        return several[0]
    return "not told by the file; one of: " + _CHOICE.join(several)


def tell_licence(licence: str, source: str) -> None:
    """Log what binds these weights, once in a process: a warning where commercial use is not allowed."""
    if (licence, source) in _told:
        return
    _told.add((licence, source))
    if commercial_use(licence) is False:
        logger.warning(
            "%s: licence %s. Commercial use is not allowed; this passes on to what is made from it.", source, licence
        )
    else:
        logger.info("%s: licence %s", source, licence)
