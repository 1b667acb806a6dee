import pytest
import torch
from safetensors.torch import load_file

from distill3d.nn.rope import grid_positions, rotary_table, rotate


def heads(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_equals_the_recording(fixtures):
    golden = load_file(fixtures / "dust3r" / "golden.safetensors")
    found = rotate(golden["rope.in"], rotary_table(golden["rope.pos"], 16))
    torch.testing.assert_close(found, golden["rope.out"], rtol=0, atol=1e-6)


def test_every_plane_turns_by_its_own_angle():
    vectors, (y, x) = heads(1, 1, 1, 8), (3, -2)
    found = rotate(vectors, rotary_table(torch.tensor([[[y, x]]]), 8, base=100.0))[0, 0, 0]
    for half, position in ((0, y), (4, x)):
        for index in range(2):
            angle = torch.tensor(position * 100.0 ** (-index / 2))
            a, b = vectors[0, 0, 0, half + index], vectors[0, 0, 0, half + index + 2]
            torch.testing.assert_close(found[half + index], a * angle.cos() - b * angle.sin())
            torch.testing.assert_close(found[half + index + 2], b * angle.cos() + a * angle.sin())


def test_products_depend_on_the_difference_of_positions_alone():
    query, key = heads(1, 2, 1, 16, seed=1), heads(1, 2, 1, 16, seed=2)

    def product(of_query, of_key):
        turned = rotate(query, rotary_table(torch.tensor([[of_query]]), 16))
        return (turned * rotate(key, rotary_table(torch.tensor([[of_key]]), 16))).sum(dim=-1)

    torch.testing.assert_close(product([5, 2], [3, 9]), product([2, -1], [0, 6]), rtol=1e-4, atol=1e-5)


def test_position_zero_changes_nothing_and_lengths_stay():
    vectors = heads(2, 3, 6, 12)
    assert torch.equal(rotate(vectors, rotary_table(torch.zeros(1, 6, 2).long(), 12)), vectors)
    turned = rotate(vectors, rotary_table(grid_positions(2, 3), 12))
    torch.testing.assert_close(turned.norm(dim=-1), vectors.norm(dim=-1))


def test_positions_run_row_by_row():
    assert grid_positions(2, 3)[0].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_rounding_is_asked_for_and_precision_is_kept():
    vectors, positions = heads(1, 2, 6, 8), grid_positions(2, 3)
    exact = rotate(vectors, rotary_table(positions, 8))
    rounded = rotate(vectors, rotary_table(positions, 8, rounding=torch.float16))
    assert torch.equal(rounded, rounded.half().float())
    assert 0 < (rounded - exact).abs().max() < 2e-3
    assert rotate(vectors.bfloat16(), rotary_table(positions, 8)).dtype == torch.bfloat16


def test_a_head_that_four_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="10 wide"):
        rotary_table(grid_positions(1, 1), 10)
