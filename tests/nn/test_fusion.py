import math

import pytest
import torch

from distill3d.nn.fusion import Fusion, random_view_ids, sequential_view_ids, view_id_table
from distill3d.nn.initialise import initialise_


def test_the_table_holds_sines_then_cosines():
    table = view_id_table(1000, 8)
    assert table.shape == (1000, 8)
    assert torch.equal(table[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    angles = [417 * 10000 ** (-j / 4) for j in range(4)]
    expected = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)])
    torch.testing.assert_close(table[417], expected)


def test_random_ids_are_distinct_start_at_zero_and_follow_the_generator():
    ids = random_view_ids(6, 9, 12, torch.Generator().manual_seed(3))
    assert (ids[:, 0] == 0).all()
    assert all(len(set(row.tolist())) == 9 for row in ids)
    assert int(ids.min()) == 0
    assert int(ids.max()) <= 11
    assert torch.equal(ids, random_view_ids(6, 9, 12, torch.Generator().manual_seed(3)))
    assert not torch.equal(ids, random_view_ids(6, 9, 12, torch.Generator().manual_seed(4)))
    assert len({tuple(row.tolist()) for row in ids}) > 1


def test_sequential_ids_count_up_in_every_scene():
    assert sequential_view_ids(2, 3).tolist() == [[0, 1, 2], [0, 1, 2]]


def build(attention, depth):
    fusion = Fusion(8, 12, depth=depth, num_heads=2, attention=attention)
    initialise_(fusion, "muon", torch.Generator().manual_seed(0))
    return fusion


@pytest.mark.parametrize("attention", ["global", "alternating"])
def test_it_gives_its_input_and_every_block_s_tokens(attention):
    tokens, embedding = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 12)
    levels = build(attention, 4)(tokens, embedding)
    assert [tuple(level.shape) for level in levels] == [(2, 3, 5, 8)] + [(2, 3, 5, 12)] * 4
    assert torch.equal(levels[0], tokens)
    torch.testing.assert_close(levels[-1].mean(dim=-1), torch.zeros(2, 3, 5), atol=1e-5, rtol=0)


def test_views_see_each_other_in_even_blocks_and_not_in_odd_ones():
    fusion = build("alternating", 2)
    first, second = fusion.blocks
    fusion.blocks = torch.nn.ModuleList([first])
    tokens, embedding = torch.randn(1, 2, 5, 8), torch.zeros(1, 2, 12)
    changed = tokens.clone()
    changed[:, 1] += torch.randn(5, 8)
    assert not torch.allclose(fusion(tokens, embedding)[-1][:, 0], fusion(changed, embedding)[-1][:, 0])
    # The odd block alone: give it even place 0 by an identity in front.
    fusion.blocks = torch.nn.ModuleList([torch.nn.Identity(), second])
    torch.testing.assert_close(fusion(tokens, embedding)[-1][:, 0], fusion(changed, embedding)[-1][:, 0])


def test_scenes_of_a_batch_do_not_see_each_other():
    fusion = build("global", 2)
    tokens, embedding = torch.randn(2, 2, 3, 8), torch.randn(2, 2, 12)
    alone = fusion(tokens[:1], embedding[:1])[-1]
    torch.testing.assert_close(fusion(tokens, embedding)[-1][:1], alone)
