import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from distill3d.train.config import OptimConfig
from distill3d.train.optim import AveragedWeights, Optimizer, parameter_groups, schedule


class Toy(nn.Module):
    """Every kind of parameter that a network has."""

    def __init__(self):
        super().__init__()
        layers = {"patch_embed": nn.Conv2d(3, 8, 2), "fc": nn.Linear(8, 8), "norm": nn.LayerNorm(8)}
        self.encoder = nn.ModuleDict(layers)
        self.encoder.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.ids = nn.Embedding(5, 8)
        self.fc = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.zeros(()))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def names_of(model, group):
    found = {id(parameter): name for name, parameter in model.named_parameters()}
    return {found[id(parameter)] for parameter in group.parameters}


def test_norms_biases_tables_and_free_parameters_do_not_decay():
    model = Toy()
    groups = parameter_groups(model, OptimConfig(weight_decay=0.1))
    decayed = {name for group in groups if group.weight_decay > 0 for name in names_of(model, group)}
    assert decayed == {"encoder.patch_embed.weight", "encoder.fc.weight", "fc.weight", "head.weight"}


def test_every_trainable_parameter_is_in_exactly_one_group():
    model = Toy()
    groups = parameter_groups(model, OptimConfig(optimizer="muon", encoder_lr=1e-5))
    listed = [name for group in groups for name in names_of(model, group)]
    assert sorted(listed) == sorted(name for name, value in model.named_parameters() if value.requires_grad)


def test_the_encoder_has_its_own_rate():
    model = Toy()
    for group in parameter_groups(model, OptimConfig(lr=1e-3, encoder_lr=1e-5)):
        inside = {name.startswith("encoder.") for name in names_of(model, group)}
        assert inside == {group.lr == 1e-5}


def test_muon_takes_the_linear_layers_inside_and_nothing_at_the_borders():
    model = Toy()
    groups = parameter_groups(model, OptimConfig(optimizer="muon", lr=1e-3, matrix_lr=3e-3))
    taken = {name for group in groups if group.by_muon for name in names_of(model, group)}
    assert taken == {"encoder.fc.weight", "fc.weight"}
    assert {group.lr for group in groups if group.by_muon} == {3e-3}


def test_the_schedule_rises_linearly_and_falls_as_a_cosine():
    rates = [schedule(step, steps=100, warmup_steps=10, min_lr_ratio=0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert rates[100] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


def test_without_warm_up_and_with_ratio_one_the_rate_is_constant():
    assert {schedule(step, steps=7, warmup_steps=0, min_lr_ratio=1.0) for step in range(7)} == {1.0}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_an_optimiser_restored_from_its_state_goes_on_alike(kind):
    config = OptimConfig(optimizer=kind, lr=1e-2, warmup_steps=2)

    def work(model, optimizer, steps):
        for step in steps:
            x = torch.full((2, 8), 0.1 * (step + 1))
            model.head(model.fc(model.encoder["norm"](model.encoder["fc"](x)))).square().sum().backward()
            optimizer.clip()
            optimizer.step(step)
            optimizer.zero_grad()

    torch.manual_seed(0)
    straight = Toy()
    one = Optimizer(straight, config, 6)
    work(straight, one, range(3))
    resumed = copy.deepcopy(straight)
    two = Optimizer(resumed, config, 6)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    work(straight, one, range(3, 6))
    work(resumed, two, range(3, 6))
    for ours, theirs in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_clipping_bounds_the_whole_gradient_and_tells_its_norm():
    model = nn.Linear(3, 1)
    optimizer = Optimizer(model, OptimConfig(clip_norm=0.5), 1)
    (100 * model(torch.ones(1, 3))).sum().backward()
    assert float(optimizer.clip()) == pytest.approx(200.0)
    norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    assert float(norm) == pytest.approx(0.5, rel=1e-4)


def test_averaged_weights_forget_the_start_and_average_what_is_shared_only_once():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    average = AveragedWeights(model, decay=0.5)
    before = average.model[0].weight.clone()
    with torch.no_grad():
        model[0].weight += 1.0
    average.update(model, step=100)
    assert torch.allclose(average.model[0].weight, before + 0.5)
    average.update(model, step=0)  # decay 2 / 11
    assert torch.allclose(average.model[0].weight, before + 1 - 0.5 * 2 / 11)
