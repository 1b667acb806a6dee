"""The command line: parses, calls one function of the library, prints. Nothing else in the library prints.

Results go to stdout (`--json` for machines), talk and progress bars to stderr. Exit codes: 0 done, 2 a mistake that the
user can mend (its words say how), 130 stopped by Ctrl-C. Each verb is one file, imported only when it is called.
"""

import errno
import importlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence

import distill3d
from distill3d.errors import Distill3dError

VERBS = {
    "demo": "watch the whole chain: cache a teacher, distil a student, score it, reconstruct, report",
    "render": "make scenes that need no download: the demo's place, or endless rooms",
    "manifest": "build | check | show: list the photos, videos or scenes of a folder in one table",
    "cache": "build | check | show | merge | convert: run a teacher once over view groups and keep what it says",
    "train": "distil a student from a cache, after a recipe",
    "finetune": "sharpen the geometry of a finished network, from photos and a monocular teacher",
    "evaluate": "score a model on held-out views beside its teacher and two trivial baselines",
    "reconstruct": "photos or a video in, one point cloud with cameras out",
    "report": "one self-contained page about a run",
    "models": "list | show: the architectures and the licences of their weights",
    "weights": "merge | convert | check: adapters into networks, official files to ours and back",
}

_STOPPED = """
Stopped. What was finished is kept: `cache build`, `train` and `finetune` go on from there with --resume, other
commands when they are called again."""

_UNMENDABLE = {
    errno.ENOSPC: "The disk is full. Free some space or choose another place for the output.",
    errno.EDQUOT: "Your disk quota is used up. Free some space or choose another place for the output.",
    errno.EACCES: "Permission denied. Choose a place that you may read and write.",
    errno.EROFS: "This file system is read-only. Choose another place for the output.",
}


class RepeatFilter(logging.Filter):
    """Lets a warning through a few times: a hundred groups with one fault are told once, not a hundred times."""

    def __init__(self, most: int = 3) -> None:
        super().__init__()
        self._most = most
        self._seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Count warnings by their wording without the numbers; everything else passes."""
        if record.levelno != logging.WARNING:
            return True
        self._seen[record.msg] += 1
        if self._seen[record.msg] == self._most:
            record.msg = f"{record.msg} (more of these are not shown; --debug shows all)"
        return self._seen[record.msg] <= self._most


def main() -> None:
    """Entry point of the `distill3d` command."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Carry out one command line and return its exit code."""
    arguments = list(argv)
    as_json, quiet, debug = (_take(arguments, flag) for flag in ("--json", "--quiet", "--debug"))
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"distill3d {distill3d.__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        return _complain(f"There is no command {verb!r}. The commands are: {', '.join(VERBS)}.")

    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("distill3d").setLevel(level)
    if not debug:
        # Our own handler, not those of a program that calls `run`.
        for handler in (found for found in logging.getLogger().handlers if type(found) is logging.StreamHandler):
            handler.filters = [kept for kept in handler.filters if not isinstance(kept, RepeatFilter)] + [
                RepeatFilter()
            ]
    try:
        outcome = importlib.import_module(f"distill3d.cli.{verb}").main(rest)
        print(json.dumps(outcome.data, indent=1, sort_keys=True) if as_json else outcome.text, flush=True)
    except Distill3dError as error:
        if debug:
            raise
        return _complain(str(error))
    except KeyboardInterrupt:
        print(_STOPPED, file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader has left (`| head`); there is nobody to complain to
        return 0
    except OSError as error:
        if debug or error.errno not in _UNMENDABLE:
            raise
        return _complain(f"{error.filename or 'Writing'}: {_UNMENDABLE[error.errno]}")
    return 0


def _take(arguments: list[str], flag: str) -> bool:
    """Remove a flag that every verb understands, wherever it stands."""
    found = flag in arguments
    while flag in arguments:
        arguments.remove(flag)
    return found


def _complain(message: str) -> int:
    print(f"distill3d: {message}", file=sys.stderr)
    return 2


def _overview() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:<{width}}{what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            f"distill3d {distill3d.__version__}: small models of your own from large 3D reconstruction networks.",
            "",
            "Usage: distill3d COMMAND [OPTIONS]      (distill3d COMMAND --help tells more)",
            "",
            *lines,
            "",
            "Every command takes --json (the result for machines, on stdout), --quiet and --debug.",
            "Start with: distill3d demo",
        ]
    )
