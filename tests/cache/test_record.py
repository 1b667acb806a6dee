import pytest
import torch

from distill3d.cache import CacheHeader, CacheReader, CacheWriter
from distill3d.cache.record import join_images, join_sample, pack_image, split_sample, stack_views
from distill3d.errors import CacheError
from distill3d.types import Prediction, Views

IMAGES = torch.rand(1, 3, 3, 4, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale", [torch.tensor([2.0]), torch.tensor([[1.0, 2.0, 3.0]])], ids=["sample", "views"])
def test_a_metric_scale_of_the_sample_or_of_every_view_comes_back(scale):
    prediction = Prediction(pointmap_camera=torch.ones(1, 3, 4, 6, 3), metric_scale=scale)
    parts = split_sample("key", Views(images=IMAGES), prediction)
    _, found = join_sample(IMAGES, stack_views(parts, 3))
    assert torch.equal(found.metric_scale, scale)
    _, some = join_sample(IMAGES[:, [2, 0]], stack_views([parts[2], parts[0]], 2))
    assert torch.equal(some.metric_scale, scale if scale.ndim == 1 else scale[:, [2, 0]])


def test_photos_are_png_bit_for_bit_or_jpeg_within_its_error():
    smooth = torch.nn.functional.interpolate(IMAGES[0, :1], (40, 60), mode="bicubic").clamp(0, 1)[0]
    levels = (smooth * 255).round().to(torch.uint8)
    assert torch.equal(join_images([pack_image(smooth)], 1)[0, 0], levels.float() / 255)
    packed = pack_image(smooth, jpeg_quality=95)
    assert packed.startswith(b"\xff\xd8")
    error = (join_images([packed], 1)[0, 0] - levels.float() / 255).abs()
    assert float(error.mean()) < 2 / 255  # and red is still red
    with pytest.raises(CacheError, match="cannot be decoded"):
        join_images([packed[:30]], 1)
    with pytest.raises(CacheError, match="photo 1 is"):
        join_images([packed, pack_image(smooth[:, 1:])], 2)


def test_a_cache_keeps_its_photos_as_its_header_says(tmp_path):
    prediction = Prediction(depth=torch.ones(1, 3, 4, 6))
    with CacheWriter(tmp_path / "c", header=CacheHeader(images="jpeg", jpeg_quality=90)) as writer:
        writer.add("a", Views(images=IMAGES), prediction)
    reader = CacheReader(tmp_path / "c")
    assert reader.header.photo_quality == 90
    assert reader.blob("a", 1, "image").startswith(b"\xff\xd8")
    assert reader.verify() == []
    for bad in ({"jpeg_quality": 0}, {"jpeg_quality": 101}):
        with pytest.raises(CacheError, match="expected"):
            CacheHeader(**bad)
