import torch
from torch.nn import functional as F

from distill3d.nn.modulation import ModulatedBlock, ModulatedNorm
from distill3d.nn.rope import grid_positions, rotary_table


def test_the_norm_shifts_and_scales_each_row_by_its_own_condition():
    torch.manual_seed(0)
    norm, tokens, condition = ModulatedNorm(6), torch.randn(2, 3, 6), torch.randn(2, 6)
    shift, scale = norm.mlp[1](F.silu(condition)).split(6, dim=-1)
    for row in range(2):
        expected = norm.norm(tokens[row]) * (1 + scale[row]) + shift[row]
        torch.testing.assert_close(norm(tokens, condition)[row], expected)


def test_a_condition_that_modulates_nothing_leaves_a_plain_pre_norm_block():
    torch.manual_seed(0)
    block, tokens = ModulatedBlock(8, 2), torch.randn(1, 6, 8)
    for norm in (block.norm1, block.norm2):
        torch.nn.init.zeros_(norm.mlp[1].weight)
        torch.nn.init.zeros_(norm.mlp[1].bias)
    rotary = rotary_table(grid_positions(2, 3), 4)
    middle = tokens + block.attn(block.norm1.norm(tokens), rotary)
    expected = middle + block.mlp(block.norm2.norm(middle))
    torch.testing.assert_close(block(tokens, torch.randn(1, 8), rotary), expected)
