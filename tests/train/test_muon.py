import pytest
import torch
from torch import nn

from distill3d.train.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (12, 12)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalise(matrix)
    assert found.shape == matrix.shape
    assert found.dtype == torch.float32
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.25
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ found @ v.T
    assert (inside - torch.diag(inside.diagonal())).abs().max() < 1e-4


def test_it_walks_with_the_optimiser_of_torch_up_to_bfloat16():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(8, 24, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([{"params": [ours], "weight_decay": 0.1}], lr=1e-2, momentum=0.9)
    reference = torch.optim.Muon([theirs], lr=1e-2, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        ours.grad = torch.randn(8, 24, generator=generator)
        theirs.grad = ours.grad.clone()
        mine.step()
        reference.step()
    moved = (theirs - start).norm()
    assert moved > 0.1
    assert (ours - theirs).norm() < 0.02 * moved


def test_a_matrix_without_gradient_stays():
    still = nn.Parameter(torch.ones(2, 3))
    Muon([{"params": [still]}], lr=1.0, weight_decay=1.0).step()
    assert torch.equal(still, torch.ones(2, 3))
