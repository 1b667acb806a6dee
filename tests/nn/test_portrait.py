import pytest
import torch

from distill3d.nn.portrait import in_orientations


def head(levels, grid):
    """One pixel per token, so that a map shows the order of its tokens."""
    assert len(levels[0]) > 0
    return levels[0].transpose(1, 2).unflatten(2, grid)


def tokens(rows):
    return torch.arange(rows * 6.0).view(rows, 6, 1)


@pytest.mark.parametrize("marks", [[True, False, True], [False] * 3, [True] * 3], ids=["mixed", "none", "all"])
def test_each_row_is_seen_its_own_way_and_comes_back_as_it_is_stored(marks):
    maps = in_orientations(head, [tokens(3)], (2, 3), torch.tensor(marks))
    assert maps.shape == (3, 1, 2, 3)
    for row, upright in enumerate(marks):
        alone = tokens(3)[row, :, 0]
        expected = alone.view(3, 2).T if upright else alone.view(2, 3)
        assert torch.equal(maps[row, 0], expected)


def test_without_marks_the_head_runs_once_as_it_is():
    assert torch.equal(in_orientations(head, [tokens(2)], (2, 3), None), head([tokens(2)], (2, 3)))


def test_gradients_reach_both_kinds_of_rows():
    level = tokens(2).requires_grad_()
    in_orientations(head, [level], (2, 3), torch.tensor([True, False])).square().sum().backward()
    assert torch.equal(level.grad, 2 * level.detach())
