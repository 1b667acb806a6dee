import dataclasses
import subprocess
import sys

import pytest
import torch

from distill3d import models
from distill3d.errors import ConfigError
from distill3d.geometry.cameras import camera_rays, centred_intrinsics
from distill3d.geometry.poses import look_at
from distill3d.models._pi3_config import image_size
from distill3d.types import map_tensors

SPEC = models.get("pi3")
FIELDS = ("pointmap_camera", "pointmap_world", "confidence_camera", "world_from_camera")
SMALL = {
    name: dataclasses.replace(SPEC.variants[name], encoder_depth=1, branch_depth=1, widths=(32, 32, 16))
    for name in ("tiny", "tinyx")
}


def photos(batch=1, views=3, height=28, width=42):
    return torch.rand(batch, views, 3, height, width, generator=torch.Generator().manual_seed(4))


def conditions(batch=1, views=3, height=28, width=42):
    generator = torch.Generator().manual_seed(9)
    eye = torch.randn(batch, views, 3, generator=generator)
    up = torch.tensor([0.0, -1.0, 0.0]).expand(batch, views, 3)
    return {
        "depth": 1 + torch.rand(batch, views, height, width, generator=generator),
        "intrinsics": centred_intrinsics(torch.full((batch, views), 40.0), height, width),
        "world_from_camera": look_at(eye, eye + torch.tensor([0.1, 0.2, 1.0]), up),
    }


@pytest.fixture(scope="module", params=list(SMALL))
def model(request):
    return SPEC.build(SMALL[request.param]).eval()


@pytest.fixture(scope="module")
def extended():
    network = SPEC.build(SMALL["tinyx"]).eval()
    with torch.no_grad():  # a LayerScale of 0.01 would hide what poses do
        for block in network.pose_inject_blk:
            block.ls1.gamma.fill_(1)
            block.ls2.gamma.fill_(1)
    return network


def assert_same(first, second):
    for name in FIELDS:
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=1e-4, atol=1e-5)


def rows(record, row):
    """One scene of a batch."""
    return map_tensors(record, lambda tensor: tensor[row : row + 1])


@torch.no_grad()
def test_scenes_of_a_batch_do_not_see_each_other(model):
    images = photos(2)
    together = model(images)
    for row in range(2):
        assert_same(model(images[row : row + 1]), rows(together, row))


@torch.no_grad()
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_chunks_of_views_change_no_value(model, chunk):
    images = photos(2)
    assert_same(model(images), model(images, head_chunk=chunk))


@torch.no_grad()
def test_the_order_of_the_views_changes_nothing_but_the_order(model):
    images, order = photos(), [2, 0, 1]
    shuffled, plain = model(images[:, order]), model(images)
    for name in FIELDS:
        torch.testing.assert_close(getattr(shuffled, name), getattr(plain, name)[:, order], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_poses_are_rigid_and_confidences_are_probabilities(model):
    found = model(photos(2))
    rotation = found.world_from_camera[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.transpose(-1, -2), torch.eye(3).expand(2, 3, 3, 3))
    assert (torch.linalg.det(rotation) > 0).all()
    assert ((found.confidence_world > 0) & (found.confidence_world < 1)).all()
    assert (found.metric_scale is None) == (not model.config.extended)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", list(SMALL))
def test_every_weight_gets_a_gradient(name, recompute):
    network = SPEC.build(dataclasses.replace(SMALL[name], gradient_checkpointing=recompute)).train()
    given = conditions() if network.config.extended else {}
    found = network(photos(), **given)
    sum(getattr(found, field).square().mean() for field in FIELDS).backward()
    missing = [key for key, value in network.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []
    assert all(torch.isfinite(value.grad).all() for value in network.parameters() if value.grad is not None)


@torch.no_grad()
def test_neither_the_world_frame_nor_the_scale_of_conditions_matters(extended):
    given = conditions()
    plain = extended(photos(), **given)
    moved = look_at(torch.tensor([3.0, 1.0, 2.0]), torch.zeros(3), torch.tensor([0.0, -1.0, 0.2]))
    pose = moved @ given["world_from_camera"]
    assert_same(extended(photos(), **(given | {"world_from_camera": pose})), plain)
    scaled = given["world_from_camera"].clone()
    scaled[..., :3, 3] *= 5
    assert_same(extended(photos(), **(given | {"world_from_camera": scaled, "depth": given["depth"] * 5})), plain)
    without = {"intrinsics": given["intrinsics"]}
    same_scale = [extended(photos(), **without, world_from_camera=one) for one in (given["world_from_camera"], scaled)]
    assert_same(*same_scale)


@torch.no_grad()
def test_rays_say_the_same_as_intrinsics_and_masks_switch_conditions_off(extended):
    given, images = conditions(), photos()
    rays = camera_rays(given["intrinsics"], 28, 42)
    assert_same(extended(images, rays=rays), extended(images, intrinsics=given["intrinsics"]))
    none = torch.zeros(1, 3, dtype=torch.bool)
    assert_same(extended(images, **given, has_depth=none, has_rays=none, has_pose=none), extended(images))
    one = torch.tensor([[False, True, False]])
    told = {"intrinsics": given["intrinsics"]}
    assert_same(
        extended(images, **told, world_from_camera=given["world_from_camera"], has_pose=one), extended(images, **told)
    )


@torch.no_grad()
def test_conditions_of_one_scene_do_not_reach_another(extended):
    images, given = photos(2), conditions(2)
    masks = {"has_pose": torch.tensor([[True, True, False], [False] * 3])}
    together = extended(images, **given, **masks)
    for row in range(2):
        single = {name: value[row : row + 1] for name, value in (given | masks).items()}
        assert_same(extended(images[row : row + 1], **single), rows(together, row))
    first, other = extended(photos(), **conditions()), extended(photos())
    assert (first.world_from_camera - other.world_from_camera).abs().max() > 1e-3


def test_what_cannot_be_used_is_refused(extended):
    given = conditions()
    with pytest.raises(ConfigError, match="rays are known"):
        extended(photos(), world_from_camera=given["world_from_camera"])
    with pytest.raises(ConfigError, match="not both"):
        extended(photos(), intrinsics=given["intrinsics"], rays=camera_rays(given["intrinsics"], 28, 42))
    with pytest.raises(ConfigError, match="photos alone"):
        SPEC.build(SMALL["tiny"])(photos(), depth=given["depth"])
    with pytest.raises(ConfigError, match=r"30x42.*multiples of the patch size 14"):
        extended(photos(height=30))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 66}, "dim must be a multiple"),
        ({"depth": 3}, "depth must be even"),
        ({"conditions": True}, "Only Pi3X"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL["tiny"], **change)


def test_the_decoder_compiles_in_one_piece():
    # In a process of its own: the checks of shapes that the tests switch on are nothing a compiler can read.
    code = """
import torch
from distill3d import models
spec = models.get("pi3")
model = spec.build(spec.variants["tiny"]).eval()
images = torch.rand(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    compiled = torch.compile(model.decode, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model.decode(images))
print("same")
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == "same", shown.stderr[-2000:]


@pytest.mark.parametrize(
    ("photo", "size"), [((480, 640), (434, 574)), ((1000, 1000), (504, 504)), ((10, 4000), (14, 10094))]
)
def test_photos_get_the_size_that_the_network_was_trained_for(photo, size):
    found = image_size(*photo)
    assert found[0] * found[1] <= 255_000
    assert found == size
    assert image_size(photo[1], photo[0]) == (size[1], size[0])
