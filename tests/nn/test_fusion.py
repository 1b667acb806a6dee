import math

import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.nn.fusion import Fusion, ViewIdEmbedding, random_view_ids, sequential_view_ids, view_id_table
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


def test_views_of_different_sizes_see_each_other_as_equal_ones_do():
    fusion, embedding = build("global", 3), torch.randn(2, 2, 12)
    tokens = torch.randn(2, 2, 5, 8)
    for mixed, level in zip(fusion.forward_mixed(tokens.unbind(1), embedding), fusion(tokens, embedding), strict=True):
        torch.testing.assert_close(torch.stack(mixed, dim=1), level)
    levels = fusion.forward_mixed([torch.randn(2, 5, 8), torch.randn(2, 7, 8)], embedding)
    assert [[part.shape[1] for part in level] for level in levels] == [[5, 7]] * 4
    with pytest.raises(ValueError, match="need global attention"):
        build("alternating", 2).forward_mixed(tokens.unbind(1), embedding)


def test_only_the_levels_asked_for_are_kept():
    fusion, tokens, embedding = build("global", 4), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 12)
    every = fusion(tokens, embedding)
    kept = fusion(tokens, embedding, keep=(0, 2, 4))
    assert len(kept) == 3
    assert all(torch.equal(found, every[index]) for found, index in zip(kept, (0, 2, 4), strict=True))


def test_ids_that_are_named_win_over_the_policy_and_must_lie_in_the_table():
    layer, ids = ViewIdEmbedding(12, num_ids=6).eval(), torch.tensor([[0, 5, 3]])
    assert torch.equal(layer(1, 3, ids), view_id_table(6, 12)[ids])
    assert torch.equal(layer(1, 3), layer(1, 3))
    counted = ViewIdEmbedding(12, num_ids=6, policy="sequential")
    assert torch.equal(counted(2, 3), view_id_table(6, 12)[:3].expand(2, 3, 12))
    with pytest.raises(ConfigError, match=r"0 \.\. 5, found 0 \.\. 6"):
        layer(1, 2, torch.tensor([[0, 6]]))
    with pytest.raises(ConfigError, match="pass generator= or view_ids="):
        layer.train()(1, 3)
    assert not layer.state_dict()
