import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.nn.images import ImageNormalisation, patch_grid


def test_the_statistics_of_imagenet_and_of_the_dust3r_family():
    grey = torch.full((2, 3, 4, 4), 0.5)
    assert torch.equal(ImageNormalisation("half")(grey), torch.zeros_like(grey))
    red = ImageNormalisation("imagenet")(grey)[0, 0, 0, 0].item()
    assert red == pytest.approx((0.5 - 0.485) / 0.229, abs=1e-6)


def test_they_are_never_in_a_weight_file():
    assert ImageNormalisation("imagenet").state_dict() == {}


def test_the_grid_counts_rows_first():
    assert patch_grid(torch.zeros(1, 2, 3, 28, 42), 14) == (2, 3)


@pytest.mark.parametrize("size", [(30, 28), (28, 30), (0, 28)])
def test_other_sides_are_refused_with_a_size_that_fits(size):
    with pytest.raises(ConfigError, match=r"multiples of the patch size 14\. Resize them, e\.g\. to \d+x28"):
        patch_grid(torch.zeros(1, 3, *size), 14)
