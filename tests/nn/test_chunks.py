import pytest
import torch

from distill3d.nn.chunks import in_chunks


@pytest.mark.parametrize(("chunk", "passes"), [(None, [5]), (2, [2, 2, 1]), (9, [5]), (0, [1] * 5)])
def test_every_view_passes_once_in_order(chunk, passes):
    seen = []

    def head(levels, grid):
        seen.append(len(levels[0]))
        return (levels[0] + levels[1]).transpose(1, 2).unflatten(2, grid)

    levels = [torch.arange(5.0 * 6 * 2).view(5, 6, 2), torch.ones(5, 6, 2)]
    found = in_chunks(head, levels, (2, 3), chunk)
    assert seen == passes
    assert torch.equal(found, (levels[0] + 1).transpose(1, 2).view(5, 2, 2, 3))


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_the_same_with_and_without_recomputing(recompute):
    weight = torch.tensor(2.0, requires_grad=True)
    calls = []

    def head(levels, grid):
        calls.append(grid)
        return (weight * levels[0]).square().transpose(1, 2).unflatten(2, grid)

    in_chunks(head, [torch.ones(3, 4, 1)], (2, 2), 1, recompute=recompute).sum().backward()
    assert weight.grad.item() == pytest.approx(2 * 2.0 * 12)
    assert len(calls) == (6 if recompute else 3)
