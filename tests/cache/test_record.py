import pytest
import torch

from distill3d.cache.record import join_sample, split_sample
from distill3d.types import Prediction, Views

IMAGES = torch.rand(1, 3, 3, 4, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale", [torch.tensor([2.0]), torch.tensor([[1.0, 2.0, 3.0]])], ids=["sample", "views"])
def test_a_metric_scale_of_the_sample_or_of_every_view_comes_back(scale):
    prediction = Prediction(pointmap_camera=torch.ones(1, 3, 4, 6, 3), metric_scale=scale)
    parts = split_sample("key", Views(images=IMAGES), prediction)
    _, found = join_sample(IMAGES, parts)
    assert torch.equal(found.metric_scale, scale)
    _, some = join_sample(IMAGES[:, [2, 0]], [parts[2], parts[0]])
    assert torch.equal(some.metric_scale, scale if scale.ndim == 1 else scale[:, [2, 0]])
