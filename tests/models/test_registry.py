import dataclasses
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

from distill3d import models
from distill3d.errors import ConfigError
from distill3d.models import ModelSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutsideConfig:
    dim: int = 3


class Outside(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.linear = config, nn.Linear(config.dim, 1)


OUTSIDE = ModelSpec(build=Outside, config=OutsideConfig, views="single", variants={"base": OutsideConfig()})
NO_SPEC = "something else"


@pytest.fixture
def entry_points(monkeypatch):
    found = [
        EntryPoint("outside", f"{__name__}:OUTSIDE", models.ENTRY_POINTS),
        EntryPoint("wrong", f"{__name__}:NO_SPEC", models.ENTRY_POINTS),
    ]
    monkeypatch.setattr(models, "entry_points", lambda group: found if group == models.ENTRY_POINTS else [])
    models.get.cache_clear()
    yield
    models.get.cache_clear()


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"no model 'distiller'.*distill3r"):
        models.get("distiller")


def test_every_name_leads_to_a_spec_whose_variants_have_its_config():
    assert "distill3r" in models.names()
    for name in models.names():
        spec = models.get(name)
        assert spec.variants
        assert all(isinstance(config, spec.config) for config in spec.variants.values())


def test_other_packages_add_models_by_entry_point(entry_points):
    assert set(models.names()) >= {"distill3r", "outside", "wrong"}
    assert models.get("outside") is OUTSIDE
    with pytest.raises(ConfigError, match="'wrong' gives a str, expected a ModelSpec"):
        models.get("wrong")


def test_an_unknown_variant_lists_the_known_ones():
    spec = models.get("distill3r")
    with pytest.raises(ConfigError, match=r"no variant 'huge'.*paper.*demo.*tiny"):
        spec.variant("huge")
    assert spec.variant() is spec.variants["paper"]


@pytest.mark.parametrize(
    ("name", "variant"), [(name, key) for name in models.names() for key in models.get(name).variants if "tiny" in key]
)
def test_fresh_weights_do_not_depend_on_the_global_generator(name, variant):
    spec = models.get(name)
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(spec.build(spec.variant(variant)).state_dict())
    assert [key for key, value in made[0].items() if not torch.equal(value, made[1][key])] == []
