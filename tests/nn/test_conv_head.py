import pytest
import torch

from distill3d.geometry.shift import view_plane_grid
from distill3d.nn.conv_head import ConvHead, ConvPyramid, append_grid, doubling
from distill3d.nn.dpt import ResidualUnit


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(6))


def test_the_grid_stands_behind_the_channels():
    x = noise(2, 3, 4, 6)
    found = append_grid(x, aspect=2.0)
    assert torch.equal(found[:, :3], x)
    grid = view_plane_grid(4, 6, 2.0)
    assert torch.equal(found[1, 3], grid[..., 0])
    assert torch.equal(found[0, 4], grid[..., 1])


@pytest.mark.parametrize("kind", ["transposed", "bilinear"])
def test_doubling_doubles(kind):
    assert doubling(5, 3, kind)(noise(1, 5, 4, 6)).shape == (1, 3, 8, 12)


def test_a_constant_map_stays_constant_where_borders_are_repeated():
    unit = ResidualUnit(4, padding="replicate")
    out = unit(torch.ones(1, 4, 5, 5))
    torch.testing.assert_close(out, out[..., :1, :1].expand_as(out))
    dark = ResidualUnit(4)(torch.ones(1, 4, 5, 5))
    assert (dark - dark[..., 2:3, 2:3]).abs().max() > 1e-3


def test_a_normed_unit_does_not_see_the_size_of_its_input_but_in_the_skip():
    unit = ResidualUnit(32, hidden=64, group_norm=True, padding="replicate")
    x = noise(1, 32, 5, 5)
    torch.testing.assert_close(unit(100 * x) - 100 * x, unit(x) - x, rtol=1e-3, atol=1e-3)


def test_a_head_reaches_any_size_and_sums_its_inputs():
    head = ConvHead([6, 6], out_channels=(3, 1), project=8, widths=(16, 16, 16), last_channels=4)
    maps = [noise(2, 6, 3, 4), noise(2, 6, 3, 4) + 1]
    points, mask = head(maps, (45, 58))
    assert points.shape == (2, 3, 45, 58)
    assert mask.shape == (2, 1, 45, 58)
    head.projects[1].load_state_dict(head.projects[0].state_dict())
    swapped = head(maps[::-1], (45, 58))
    torch.testing.assert_close(head(maps, (45, 58))[0], swapped[0])


def test_maps_that_are_not_projected_cannot_be_summed():
    with pytest.raises(ValueError, match="2 maps can only be summed"):
        ConvHead([6, 6], out_channels=(3,))


def test_a_neck_gives_every_level_and_a_head_the_last():
    widths = (16, 8, 8, 4, 4)
    levels = [noise(1, 2, 3 * 2**level, 4 * 2**level) for level in range(5)]
    out = ConvPyramid((2,) * 5, widths, (0, 1, 1, 1, 0))(levels)
    assert [tuple(level.shape[1:]) for level in out] == [
        (width, 3 * 2**level, 4 * 2**level) for level, width in enumerate(widths)
    ]
    (last,) = ConvPyramid(widths, widths, (0, 1, 0, 0, 0), out_channels=3)(out)
    assert last.shape == (1, 3, 48, 64)
