from dataclasses import replace

import pytest

from distill3d.errors import ConfigError
from distill3d.train.config import DistillConfig, OptimConfig, SamplingConfig
from distill3d.train.recipes import RECIPES, get_recipe


def test_the_paper_recipe_has_the_numbers_of_the_paper():
    paper = get_recipe("paper")
    assert (paper.optim.lr, paper.optim.warmup_steps, paper.views) == (1e-4, 3500, 20)
    assert (paper.loss.alpha_global, paper.loss.alpha_local, paper.loss.gamma) == (2.0, 1.0, 0.001)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_made_by_its_name_with_either_kind_of_dash(name):
    assert get_recipe(name) == get_recipe(name.replace("_", "-"))
    assert isinstance(get_recipe(name), DistillConfig)


def test_an_unknown_recipe_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match=r"no recipe 'desktop'.*paper, laptop, demo, place_teacher"):
        get_recipe("desktop")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: DistillConfig(views=0), "views"),
        (lambda: DistillConfig(views=2, data=SamplingConfig(min_views=3)), "data.min_views"),
        (lambda: OptimConfig(warmup_steps=-1), "optim.warmup_steps"),
        (lambda: OptimConfig(lr=-1.0), "optim.lr"),
        (lambda: OptimConfig(ema_decay=1.0), "optim.ema_decay"),
        (lambda: replace(DistillConfig(), head_chunk=0), "head_chunk"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_what_was_expected(make, name):
    with pytest.raises(ConfigError, match=f"{name} is .*, expected"):
        make()
