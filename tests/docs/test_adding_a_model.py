"""The example of docs/adding-a-model.md, cut out of the page and run."""

import importlib
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from distill3d import checkpoints, models
from distill3d.errors import CheckpointError, ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-model.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def tiny3r(tmp_path, monkeypatch):
    """The module of the page, in a package of its own that an entry point names as the page does."""
    (registration,) = blocks("toml")
    name, target = re.search(r'^(\w+) = "([\w.:]+)"$', registration, re.MULTILINE).groups()
    package, _, module = target.partition(":")[0].partition(".")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / f"{module}.py").write_text(blocks("python")[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert f'[project.entry-points."{models.ENTRY_POINTS}"]' in registration
    points = [EntryPoint(name, target, models.ENTRY_POINTS)]
    monkeypatch.setattr(models, "entry_points", lambda group: points if group == models.ENTRY_POINTS else [])
    models.get.cache_clear()
    importlib.invalidate_caches()
    yield models.get(name)
    models.get.cache_clear()
    for known in [known for known in sys.modules if known.split(".")[0] == package]:
        del sys.modules[known]


def test_the_page_has_one_module_one_registration_and_one_test():
    assert len(blocks("python")) == 2
    assert len(blocks("toml")) == 1
    assert str(PAGE.parent.parent / "tests/docs/test_adding_a_model.py") == __file__


def test_the_test_of_the_page_passes(tiny3r):
    exec(compile(blocks("python")[1], str(PAGE), "exec"), {})


def test_the_example_is_known_by_name_and_saved_and_opened_like_any_other(tiny3r, tmp_path):
    assert "tiny3r" in models.names()
    model = tiny3r.build(tiny3r.variant("tiny"), generator=torch.Generator().manual_seed(3)).eval()
    torch.save({"model": checkpoints.to_official(model, tiny3r)}, tmp_path / "official.pth")
    opened = checkpoints.load_model("tiny3r", weights=tmp_path / "official.pth", variant="tiny").eval()
    images = torch.rand(1, 2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(opened(images).pointmap_world, model(images).pointmap_world)


def test_the_example_refuses_what_does_not_fit(tiny3r):
    with pytest.raises(ConfigError, match="multiple of heads"):
        tiny3r.config(dim=50, heads=3)
    model = tiny3r.build(tiny3r.variant("tiny"))
    with pytest.raises(ConfigError, match="multiples of the patch size 14"):
        model(torch.zeros(1, 1, 3, 30, 28))
    weights = checkpoints.to_official(model, tiny3r)
    weights.pop("out.proj.bias")
    with pytest.raises(CheckpointError, match=r"head\.proj\.bias|out\.proj\.bias"):
        checkpoints.load_official(model, tiny3r, weights, source="a short file")


def test_every_view_reaches_every_map_and_every_weight_learns(tiny3r):
    model = tiny3r.build(tiny3r.variant("tiny")).train()
    images = torch.rand(1, 2, 3, 28, 28, generator=torch.Generator().manual_seed(0)).requires_grad_()
    prediction = model(images)
    (prediction.pointmap_world[:, 0].square().mean() + prediction.confidence_world[:, 0].mean()).backward()
    assert (images.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
