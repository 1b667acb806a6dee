import json
import logging
import subprocess
import sys

import pytest

from distill3d import cli
from distill3d.cli.models import commercial_use
from distill3d.cli.outcome import Outcome
from distill3d.errors import DataError


class Verb:
    """A stand-in for a verb's module."""

    def __init__(self, result):
        self.result = result

    def main(self, arguments):
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def verb_gives(monkeypatch):
    def install(result):
        monkeypatch.setattr(cli.importlib, "import_module", lambda name: Verb(result))

    return install


def test_help_lists_every_verb(capsys):
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in cli.VERBS)


def test_an_unknown_verb_names_the_known_ones(capsys):
    assert cli.run(["recontsruct"]) == 2
    assert "reconstruct" in capsys.readouterr().err


def test_a_user_mistake_becomes_its_words_and_code_2(verb_gives, capsys):
    verb_gives(DataError("photos/ is empty: expected at least 2 photos"))
    assert cli.run(["train"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "photos/ is empty" in captured.err


def test_a_full_disk_becomes_words_and_code_2(verb_gives, capsys):
    verb_gives(OSError(28, "No space left on device", "out.ply"))
    assert cli.run(["train"]) == 2
    assert "out.ply: The disk is full" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(verb_gives):
    verb_gives(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.run(["train"])


def test_ctrl_c_ends_with_130(verb_gives, capsys):
    verb_gives(KeyboardInterrupt())
    assert cli.run(["train"]) == 130
    assert "Stopped" in capsys.readouterr().err


def test_json_goes_to_stdout_wherever_the_flag_stands(verb_gives, capsys):
    verb_gives(Outcome(data={"views": 3}, text="3 views"))
    assert cli.run(["train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"views": 3}
    assert cli.run(["train"]) == 0
    assert capsys.readouterr().out == "3 views\n"


def test_the_installed_command_answers():
    shown = subprocess.run([sys.executable, "-m", "distill3d", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("distill3d ")


def test_a_warning_that_comes_again_and_again_is_told_three_times():
    def record(level, count):
        return logging.LogRecord("distill3d.eval", level, "", 0, "%d views tell no focal length", (count,), None)

    told = cli.RepeatFilter()
    warnings = [record(logging.WARNING, count) for count in range(5)]
    shown = [warning.getMessage() for warning in warnings if told.filter(warning)]
    assert len(shown) == 3
    assert "more of these" in shown[-1]
    assert all(told.filter(record(logging.INFO, count)) for count in range(10))


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("Apache-2.0", True),
        ("MIT", True),
        ("CC0-1.0 (generated)", True),
        ("CC-BY-NC-SA-4.0", False),
        ("NAVER non-commercial", False),
        ("that of the data set", None),
        ("unknown", None),
    ],
)
def test_commercial_use_is_told_only_where_the_licence_says_it(licence, allowed):
    assert commercial_use(licence) is allowed
