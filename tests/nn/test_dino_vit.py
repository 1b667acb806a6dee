import pytest
import torch

from distill3d.nn.dino_vit import DinoViT, resize_positions
from distill3d.nn.initialise import initialise_


def build(**changes):
    model = DinoViT(**({"dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "table_side": 3} | changes))
    initialise_(model, "muon", torch.Generator().manual_seed(0))
    return model


def test_sides_that_are_no_multiples_are_refused_with_the_sizes():
    with pytest.raises(ValueError, match=r"10x12.*multiples of the patch size 4"):
        build()(torch.zeros(1, 3, 10, 12))


@pytest.mark.parametrize("registers", [0, 4])
def test_tokens_are_cut_into_class_registers_and_patches(registers):
    tokens = build(num_registers=registers)(torch.rand(2, 3, 8, 12))
    assert tokens.cls.shape == (2, 16)
    assert tokens.registers.shape == (2, registers, 16)
    assert tokens.patches.shape == (2, 6, 16)


def test_patches_come_row_by_row():
    model, images = build(depth=1), torch.rand(1, 3, 12, 12)
    changed = images.clone()
    changed[..., 4:8, 8:] = 0  # the patch in row 1, column 2
    moved = (model.patch_embed(images) - model.patch_embed(changed)).abs().sum(dim=-1)[0]
    assert moved.nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("method", ["offset", "antialias"])
def test_a_table_of_the_right_size_stays_as_it_is(method):
    table = torch.randn(1, 9, 4)
    assert resize_positions(table, (3, 3), method) is table
    assert resize_positions(table, (2, 5), method).shape == (1, 10, 4)


def test_a_constant_table_stays_constant_whatever_the_grid():
    for method in ("offset", "antialias"):
        resized = resize_positions(torch.full((1, 16, 2), 0.3), (7, 3), method)
        torch.testing.assert_close(resized, torch.full((1, 21, 2), 0.3))


def test_recomputing_activations_changes_no_gradient():
    model, images = build(), torch.rand(1, 3, 12, 12)
    gradients = []
    for recompute in (False, True):
        model.zero_grad()
        model.gradient_checkpointing = recompute
        model(images).patches.square().sum().backward()
        gradients.append(model.blocks[0].attn.qkv.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])
