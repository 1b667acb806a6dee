import pytest
import torch

from distill3d.nn.attention import Attention
from distill3d.nn.block import Block


def plain_attention(layer: Attention, tokens: torch.Tensor, scale: float) -> torch.Tensor:
    batch, count, dim = tokens.shape
    query, key, value = layer.qkv(tokens).reshape(batch, count, 3, layer.num_heads, -1).unbind(dim=2)
    logits = torch.einsum("bqhd,bkhd->bhqk", query, key) * scale
    return layer.proj(torch.einsum("bhqk,bkhd->bqhd", logits.softmax(dim=-1), value).reshape(batch, count, dim))


@pytest.mark.parametrize("scale", [None, 0.7])
def test_it_equals_the_plain_formula(scale):
    torch.manual_seed(0)
    layer, tokens = Attention(12, 3, scale=scale), torch.randn(2, 5, 12)
    torch.testing.assert_close(layer(tokens), plain_attention(layer, tokens, scale or 4**-0.5))


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="10 cannot be split over 3 heads"):
        Attention(10, 3)


def test_a_block_whose_layer_scale_is_zero_changes_nothing():
    block, tokens = Block(8, 2, layer_scale=0.0), torch.randn(1, 3, 8)
    assert torch.equal(block(tokens), tokens)


def test_a_block_without_layer_scale_has_no_such_weights():
    assert not [name for name in Block(8, 2).state_dict() if name.startswith("ls")]
    assert "ls1.gamma" in Block(8, 2, layer_scale=1e-4).state_dict()


def test_normed_queries_and_keys_do_not_feel_the_scale_of_their_projection():
    torch.manual_seed(0)
    layer, tokens = Attention(12, 3, qk_norm_eps=1e-5), torch.randn(2, 5, 12)
    before = layer(tokens)
    with torch.no_grad():
        layer.qkv.weight[:24] *= 50
        layer.qkv.bias[:24] *= 50
    torch.testing.assert_close(layer(tokens), before, rtol=1e-3, atol=1e-3)
    assert "q_norm.weight" in layer.state_dict()
    assert "q_norm.weight" not in Attention(12, 3).state_dict()
