from pathlib import Path

import pytest

from distill3d.data import datasets

PAGE = (Path(__file__).parents[2] / "docs/datasets.md").read_text(encoding="utf-8")
PUBLISHED = [name for name in datasets.names() if datasets.get(name).role != "own"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_page_says_of_each_set_what_the_code_says(name):
    spec = datasets.get(name)
    section = PAGE.split(f"### {spec.title}\n")[1].split("\n### ")[0]
    for line in (
        f"- Get it: {spec.url}",
        f"- Size: {spec.size}",
        f"- Licence: {spec.licence}",
        f"- What is derived may be shared: {spec.sharing}",
        f"--out {name}.parquet`",
    ):
        assert line in section


def test_the_page_has_no_set_that_is_not_read():
    assert PAGE.count("\n### ") == len(PUBLISHED)
