import pytest
import torch

from distill3d.nn.attention import CrossAttention
from distill3d.nn.croco_vit import CrocoEncoder, DecoderBlock
from distill3d.nn.rope import grid_positions, rotary_table, rotate


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def build(**changes):
    return CrocoEncoder(**({"dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4} | changes))


def test_cross_attention_equals_the_plain_formula():
    layer, tokens, memory = CrossAttention(16, 2), torch.randn(2, 6, 16), torch.randn(2, 4, 16)
    own, others = rotary_table(grid_positions(2, 3), 8), rotary_table(grid_positions(2, 2), 8)
    query, key, value = (
        part(x).reshape(2, -1, 2, 8).transpose(1, 2)
        for part, x in ((layer.projq, tokens), (layer.projk, memory), (layer.projv, memory))
    )
    weights = (rotate(query, own) @ rotate(key, others).transpose(-1, -2) / 8**0.5).softmax(dim=-1)
    expected = layer.proj((weights @ value).transpose(1, 2).reshape(2, 6, 16))
    torch.testing.assert_close(layer(tokens, memory, own, others), expected)


def test_cross_attention_refuses_a_width_that_the_heads_cannot_share():
    with pytest.raises(ValueError, match="10 cannot be split over 3 heads"):
        CrossAttention(10, 3)


def test_a_decoder_block_sees_itself_then_the_memory_then_thinks():
    block, tokens, memory = DecoderBlock(8, 2), torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    own = tokens + block.attn(block.norm1(tokens))
    crossed = own + block.cross_attn(block.norm2(own), block.norm_y(memory))
    torch.testing.assert_close(block(tokens, memory), crossed + block.mlp(block.norm3(crossed)))
    assert {part.eps for part in block.modules() if isinstance(part, torch.nn.LayerNorm)} == {1e-6}


def test_a_portrait_row_stored_transposed_gives_the_tokens_of_the_upright_image():
    encoder, images = build(), torch.rand(2, 3, 8, 12)
    found = encoder(images, torch.tensor([False, True]))
    for row, image in enumerate((images[:1], images[1:].transpose(-1, -2))):
        upright = encoder(image)
        torch.testing.assert_close(found.tokens[row], upright.tokens[0])
        assert torch.equal(found.positions[row], upright.positions[0])


def test_where_a_patch_stands_matters():
    images = torch.rand(1, 3, 4, 4).repeat(1, 1, 2, 1)
    tokens = build()(torch.cat([images, torch.rand(1, 3, 8, 4)], dim=-1)).tokens
    assert (tokens[0, 0] - tokens[0, 2]).abs().max() > 1e-4


def test_checkpointed_blocks_give_the_same_values_and_gradients():
    encoder, images = build(), torch.rand(1, 3, 8, 8)
    encoder(images).tokens.square().sum().backward()
    expected = encoder.patch_embed.proj.weight.grad.clone()
    encoder.zero_grad()
    encoder.gradient_checkpointing = True
    encoder(images).tokens.square().sum().backward()
    torch.testing.assert_close(encoder.patch_embed.proj.weight.grad, expected)


def test_maps_of_other_channels_may_be_embedded():
    assert build(in_channels=6)(torch.rand(1, 6, 8, 4)).tokens.shape == (1, 2, 16)


def test_sides_that_are_no_multiples_are_refused_with_the_sizes():
    with pytest.raises(ValueError, match=r"10x12.*multiples of the patch size 4"):
        build()(torch.zeros(1, 3, 10, 12))
