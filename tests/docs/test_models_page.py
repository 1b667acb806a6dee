"""What docs/models.md says of the zoo is what the registry says."""

from pathlib import Path

import pytest

from distill3d import models
from distill3d.cli.models import count_parameters

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def rows():
    """(model, variant, parameters) of the first table."""
    name = ""
    for line in PAGE.partition("## ")[0].splitlines():
        cells = [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
        if len(cells) == 6 and cells[2].replace(",", "").isdigit():
            name = cells[0] or name
            yield name, cells[1], int(cells[2].replace(",", ""))


def test_every_variant_but_the_tiny_ones_is_listed():
    known = {(name, key) for name in models.names() for key in models.get(name).variants if not key.startswith("tiny")}
    assert {row[:2] for row in rows()} == known


@pytest.mark.parametrize(("name", "variant", "parameters"), list(rows()))
def test_parameters_are_counted_right(name, variant, parameters):
    assert count_parameters(name, variant) == parameters


@pytest.mark.parametrize("name", models.names())
def test_sources_and_licences_are_those_of_the_registry(name):
    for source, licence in models.get(name).licences.items():
        assert source in PAGE
        assert licence in PAGE


@pytest.mark.parametrize("name", models.names())
def test_the_licence_of_the_authors_code_is_that_of_the_registry(name):
    row = next(line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 3 and name in line)
    assert row.endswith(f"| {models.get(name).reference_licence} |")


def test_every_recording_has_its_row():
    folders = {folder.parent.name for folder in (Path(__file__).parents[1] / "fixtures").glob("*/manifest.json")}
    folders.remove("fin3r")  # adapters of these networks: docs/refine.md
    assert all(f"\n| {folder} | `test_" in PAGE for folder in folders)
