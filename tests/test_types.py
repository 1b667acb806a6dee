import pytest
import torch

from distill3d.types import Prediction, Views, collate, collate_views, select_views


def sample(seed, views=2, **fields):
    rng = torch.Generator().manual_seed(seed)
    return Prediction(depth=torch.rand(1, views, 3, 4, generator=rng), metric_scale=torch.tensor([2.0]), **fields)


def test_samples_are_joined_along_the_batch_axis():
    first, second = sample(0), sample(1)
    joined = collate([first, second])
    assert torch.equal(joined.depth, torch.cat([first.depth, second.depth]))
    assert joined.metric_scale.tolist() == [2, 2]
    assert joined.pointmap_world is None


def test_views_are_joined_along_the_view_axis_and_taken_apart_again():
    first, second = sample(0, views=1), sample(1, views=2)
    joined = collate_views([first, second])
    assert joined.depth.shape == (1, 3, 3, 4)
    assert joined.metric_scale.tolist() == [2]
    assert torch.equal(select_views(joined, [0]).depth, first.depth)
    assert torch.equal(select_views(joined, [1, 2]).depth, second.depth)


@pytest.mark.parametrize("join", [collate, collate_views])
def test_nothing_and_half_a_field_cannot_be_joined(join):
    with pytest.raises(ValueError, match="at least one record"):
        join([])
    images = torch.rand(1, 1, 3, 2, 2)
    with pytest.raises(ValueError, match="valid is present in 1 of 2 records"):
        join([Views(images=images), Views(images=images, valid=torch.ones(1, 1, 2, 2, dtype=torch.bool))])
