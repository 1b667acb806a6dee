"""Small samples whose world maps are similarities of their local maps, as a teacher's cache has them."""

import dataclasses

import torch

from distill3d.cache import CacheHeader, CacheWriter
from distill3d.types import Prediction, Views

HEADER = CacheHeader(
    teacher="test-teacher",
    weights_hash="abc",
    licence="CC0-1.0",
    image_fit={"long_side": 28, "multiple": 14, "mode": "pad"},
    seed=3,
)


def random_rotations(count: int, generator: torch.Generator) -> torch.Tensor:
    rotation = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator, dtype=torch.float64))[0]
    return rotation * torch.linalg.det(rotation)[:, None, None]


def make_sample(
    seed: int, *, views: int = 3, height: int = 6, width: int = 8, scale: float = 1.7
) -> tuple[Views, Prediction]:
    """Images exactly k / 255, random points in front of random cameras, confidences above 1, some pixels masked."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, views, height, width)
    images = torch.randint(0, 256, (1, views, 3, height, width), generator=generator).float() / 255
    spread = torch.tensor([1.0, 1.0, 3.0])
    local = torch.rand(*shape, 3, generator=generator) * spread + torch.tensor([-0.5, -0.5, 1.0])
    rotation = random_rotations(views, generator)
    translation = torch.randn(views, 1, 3, generator=generator, dtype=torch.float64)
    flat = local[0].double().reshape(views, -1, 3)
    world = scale * flat @ rotation.transpose(1, 2) + translation
    pose = torch.eye(4).repeat(1, views, 1, 1)
    pose[0, :, :3, :3] = rotation.float()
    pose[0, :, :3, 3] = translation[:, 0].float()
    views_record = Views(
        images=images,
        intrinsics=torch.rand(1, views, 3, 3, generator=generator),
        valid=torch.rand(shape, generator=generator) > 0.1,
        is_metric=torch.tensor([True]),
    )
    prediction = Prediction(
        pointmap_world=world.float().reshape(*shape, 3),
        pointmap_camera=local,
        confidence_world=1 + torch.rand(shape, generator=generator).exp(),
        confidence_camera=1 + torch.rand(shape, generator=generator).exp(),
        world_from_camera=pose,
        valid=torch.rand(shape, generator=generator) > 0.2,
        metric_scale=torch.tensor([2.5]),
    )
    return views_record, prediction


def assert_equal_records(found: Views | Prediction, expected: Views | Prediction) -> None:
    """Every field is the same, bit for bit, and present in both or in neither; NaN equals NaN."""
    for field in dataclasses.fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        assert (ours is None) == (theirs is None), field.name
        if ours is not None:
            assert ours.dtype == theirs.dtype, field.name
            assert torch.equal(torch.nan_to_num(ours.float(), 1e30), torch.nan_to_num(theirs.float(), 1e30)), field.name


def write(path, seeds, **options):
    """A cache of one sample a seed, called `scene/<seed>`."""
    with CacheWriter(path, header=HEADER, **options) as writer:
        for seed in seeds:
            writer.add(f"scene/{seed}", *make_sample(seed), info={"frames": [seed, seed + 1]})
