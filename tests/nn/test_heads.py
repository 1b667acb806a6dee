import pytest
import torch

from distill3d.nn.dpt import DPTHead
from distill3d.nn.heads import LinearHead


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (4, 4), (7, 2)])
def test_a_dpt_head_gives_one_value_per_pixel_for_odd_and_even_grids(grid):
    head = DPTHead((6, 8, 8, 8), patch_size=14, level_channels=(4, 4, 6, 8), features=8, hidden=4)
    levels = [torch.randn(2, grid[0] * grid[1], width) for width in (6, 8, 8, 8)]
    assert head(levels, grid).shape == (2, 4, grid[0] * 14, grid[1] * 14)


def test_the_unused_weights_are_there_only_on_request_and_take_no_gradient():
    sizes = {"patch_size": 4, "level_channels": (4, 4, 6, 8), "features": 8, "hidden": 4}
    lean, full = DPTHead((8,) * 4, **sizes), DPTHead((8,) * 4, **sizes, unused_weights=True)
    extra = set(full.state_dict()) - set(lean.state_dict())
    assert extra == {f"fuse.3.unit_level.conv{i}.{leaf}" for i in (1, 2) for leaf in ("weight", "bias")}
    full([torch.randn(1, 4, 8)] * 4, (2, 2)).sum().backward()
    without = {name for name, parameter in full.named_parameters() if parameter.grad is None}
    assert without == extra == {name for name, parameter in full.named_parameters() if not parameter.requires_grad}


def test_a_linear_head_writes_each_token_into_its_own_patch_row_by_row():
    head = LinearHead(3, patch_size=2, out_channels=1)
    with torch.no_grad():
        head.proj.weight.zero_()
        head.proj.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        head.proj.weight[:, 0] = 10
    tokens = torch.zeros(1, 6, 3)
    tokens[0, :, 0] = torch.arange(6.0)
    raw = head([tokens], (2, 3))[0, 0]
    patch = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    for row in range(2):
        for column in range(3):
            token = row * 3 + column
            assert torch.equal(raw[2 * row : 2 * row + 2, 2 * column : 2 * column + 2], patch + 10 * token)


@pytest.mark.parametrize("kind", ["dpt", "linear"])
def test_the_last_layer_works_in_float32_under_autocast(kind):
    torch.manual_seed(0)
    if kind == "linear":
        head, levels = LinearHead(8, patch_size=2), [torch.randn(1, 4, 8)]
    else:
        head = DPTHead((8,) * 4, patch_size=2, level_channels=(4, 4, 6, 8), features=8, hidden=4)
        levels = [torch.randn(1, 4, 8)] * 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = head(levels, (2, 2))
    assert raw.dtype == torch.float32
    if kind == "linear":
        assert torch.equal(raw, head(levels, (2, 2)))


def test_a_linear_head_may_have_a_hidden_layer_whose_last_part_writes_the_channels():
    head = LinearHead(3, patch_size=2, out_channels=3, hidden=5)
    assert (head.last.in_features, head.last.out_features) == (5, 12)
    assert head([torch.randn(2, 6, 3)], (2, 3)).shape == (2, 3, 4, 6)
