"""Measured agreement with the recordings, model by model: `python -m tests.parity.report [--json]`.

Runs the parity tests, listens to every comparison they make, and prints the worst one of each recording. The measures
are those of `official.py`: a point's deviation over its own distance, a confidence's over its own value, any other
tensor's over its largest magnitude. What tests compare by `torch.testing.assert_close` (most of DUNE, and the recorded
helpers) or in words of their own (the student's confidences) is not heard here; the tests bound it all the same.
"""

# ruff: noqa: T201

import argparse
import contextlib
import io
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MEASURES = ("relative", "relative_points", "relative_values")
BOUND = 1e-4
"""No parity test allows more: what exceeds it in a test that passes is a difference that the test asserts.

One does: CUT3R without its half-precision rotations is compared with the recording of them, last of all in its test.
"""


class Listener:
    """A plugin of pytest that keeps what the measures return."""

    def __init__(self) -> None:
        self.errors: dict[str, list[float]] = defaultdict(list)
        self.test = ""
        self.contrasts = False

    def heard(self, measure: Callable[..., float]) -> Callable[..., float]:
        def listen(found: Any, recorded: Any) -> float:
            error = measure(found, recorded)
            self.contrasts |= error > BOUND
            if not self.contrasts:
                self.errors[recording_of(self.test)].append(error)
            return error

        return listen

    def pytest_sessionstart(self) -> None:
        # Not earlier: the check of shapes must be in place before the library is imported.
        from tests.parity import official

        for name in MEASURES:
            setattr(official, name, self.heard(getattr(official, name)))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        from tests.parity import official

        modules: set[ModuleType] = {item.module for item in items if isinstance(item, pytest.Function)}
        for module in modules:
            # Some files have measures of their own under the same names.
            for name in MEASURES:
                measure = getattr(module, name, None)
                if measure is not None and measure is not getattr(official, name):
                    setattr(module, name, self.heard(measure))

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.test, self.contrasts = item.nodeid, False


def recording_of(test: str) -> str:
    """Which folder of `tests/fixtures` a test compares with."""
    stem = test.partition("::")[0].rpartition("test_")[2].removesuffix(".py")
    if stem == "moge":
        return "moge1" if "moge1" in test else "moge2"
    return "pi3x" if stem == "pi3" and "pi3x" in test else stem


def measure_all() -> tuple[int, dict[str, dict[str, float]]]:
    """Exit status of pytest, and for each recording the number of comparisons and the worst of them."""
    listener = Listener()
    with contextlib.redirect_stdout(io.StringIO()) as talk:
        status = int(
            pytest.main(
                ["-q", "-p", "no:cacheprovider", "-k", "agree or recorded", str(Path(__file__).parent)], [listener]
            )
        )
    if status:
        print(talk.getvalue(), file=sys.stderr)
    return status, {
        name: {"comparisons": len(errors), "worst": max(errors)} for name, errors in sorted(listener.errors.items())
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    status, table = measure_all()
    if status:
        print("The parity tests fail, so there is no table.", file=sys.stderr)
        return status
    if arguments.json:
        print(json.dumps(table, indent=2))
    else:
        print("| recording | comparisons | worst relative error |\n|---|---:|---:|")
        for name, row in table.items():
            print(f"| {name} | {row['comparisons']} | {row['worst']:.1e} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
