import pytest
import torch

from distill3d.cache import CacheHeader, CacheReader, CacheWriter
from distill3d.cache.record import join_sample, pack_image, split_sample, unpack_image
from distill3d.errors import CacheError
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


def test_photos_are_png_bit_for_bit_or_jpeg_within_its_error():
    smooth = torch.nn.functional.interpolate(IMAGES[0, :1], (40, 60), mode="bicubic").clamp(0, 1)[0]
    levels = (smooth * 255).round().to(torch.uint8)
    assert torch.equal(unpack_image(pack_image(smooth)), levels)
    packed = pack_image(smooth, jpeg_quality=95)
    assert packed.startswith(b"\xff\xd8")
    error = (unpack_image(packed).int() - levels.int()).abs()
    assert float(error.float().mean()) < 2  # and red is still red
    with pytest.raises(CacheError, match="cannot be decoded"):
        unpack_image(packed[:30])


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
