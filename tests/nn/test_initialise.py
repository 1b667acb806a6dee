import math

import pytest
import torch
from torch import nn

from distill3d.nn.initialise import initialise_, sine_cosine_positions


def weights(scheme, seed, disturbance=0):
    torch.manual_seed(disturbance)
    layer = nn.Sequential(nn.Linear(200, 300), nn.Conv2d(8, 16, 3), nn.ConvTranspose2d(64, 16, 4, stride=4))
    initialise_(layer, scheme, torch.Generator().manual_seed(seed))
    return layer


@pytest.mark.parametrize("scheme", ["normal_002", "muon"])
def test_the_generator_alone_decides(scheme):
    one, same, other = weights(scheme, 1), weights(scheme, 1, disturbance=9), weights(scheme, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one[0].weight, other[0].weight)
    assert all(torch.equal(part.bias, torch.zeros_like(part.bias)) for part in one)


def test_deviations_follow_the_scheme():
    muon, plain = weights("muon", 0), weights("normal_002", 0)
    assert muon[0].weight.std().item() == pytest.approx(0.7 / math.sqrt(200), rel=0.03)
    assert muon[1].weight.std().item() == pytest.approx(0.7 / math.sqrt(72), rel=0.06)
    assert muon[2].weight.std().item() == pytest.approx(0.7 / math.sqrt(64), rel=0.03)
    assert plain[0].weight.std().item() == pytest.approx(0.02, rel=0.03)


def test_places_of_a_grid_differ_and_near_ones_are_alike():
    table = sine_cosine_positions(5, 18).view(5, 5, 18)
    flat = table.flatten(0, 1)
    distance = torch.cdist(flat, flat) + 10 * torch.eye(25)
    assert distance.min() > 0.1
    assert (table[2, 2] - table[2, 3]).norm() < (table[0, 0] - table[4, 4]).norm()
    assert torch.equal(table[..., 16:], torch.zeros(5, 5, 2))  # 18 is no multiple of 4
