"""What VGGT's form of the dense head does otherwise."""

import math

import pytest
import torch
from torch.nn import functional as F

from distill3d.nn.dpt import DPTHead, ResidualUnit, uv_embedding

SIZES = {"level_channels": (4, 4, 8, 8), "features": 8, "hidden": 4}


def test_the_embedding_is_that_of_the_formula():
    channels, height, width, aspect = 8, 3, 5, 1.5
    found = uv_embedding(channels, height, width, aspect)
    for row in range(height):
        for column in range(width):
            u = (2 * column - (width - 1)) / width * aspect / math.hypot(1, aspect)
            v = (2 * row - (height - 1)) / height / math.hypot(1, aspect)
            factors = (1.0, 100 ** (-1 / 2))
            wanted = [wave(place * factor) for place in (u, v) for wave in (math.sin, math.cos) for factor in factors]
            assert found[:, row, column].tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_single_pixel_stands_in_the_middle():
    assert uv_embedding(4, 1, 1, 2.0).flatten().tolist() == [0.0, 1.0, 0.0, 1.0]


def test_a_rectified_skip_forgets_what_is_negative():
    unit, other = ResidualUnit(4, rectified_skip=True), ResidualUnit(4)
    other.load_state_dict(unit.state_dict())
    x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(other(x) - unit(x), x - F.relu(x))


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (4, 4), (7, 2)])
def test_it_gives_one_value_per_pixel_for_odd_and_even_grids(grid):
    head = DPTHead((8,) * 4, patch_size=14, out_channels=2, form="vggt", positions=True, **SIZES)
    levels = [torch.randn(2, grid[0] * grid[1], 8) for _ in range(4)]
    assert head(levels, grid).shape == (2, 2, grid[0] * 14, grid[1] * 14)


def test_features_alone_come_at_the_size_asked_for():
    head = DPTHead((8,) * 4, patch_size=7, out_channels=None, form="vggt", **SIZES)
    assert head([torch.randn(1, 6, 8)] * 4, (2, 3)).shape == (1, 8, 14, 21)


def test_levels_of_any_scale_are_normed_first():
    head = DPTHead((8,) * 4, patch_size=2, form="vggt", **SIZES)
    levels = [torch.randn(1, 6, 8) for _ in range(4)]
    torch.testing.assert_close(
        head([100 * level for level in levels], (2, 3)), head(levels, (2, 3)), rtol=1e-3, atol=1e-3
    )
