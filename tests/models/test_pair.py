"""What DUSt3R and MASt3R have in common."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from distill3d import models
from distill3d.checkpoints import load_official, to_official
from distill3d.errors import CheckpointError, ConfigError
from distill3d.models.dust3r import Dust3RConfig
from distill3d.models.mast3r import Mast3RConfig
from distill3d.types import map_tensors

SIZES = {
    "patch_size": 4, "encoder_dim": 16, "encoder_depth": 2, "encoder_heads": 2, "decoder_dim": 8, "decoder_depth": 4,
    "decoder_heads": 2, "dpt_channels": (4, 6, 8, 10), "dpt_features": 8, "dpt_hidden": 4,
    "initialisation": "muon",
}  # fmt: skip
CONFIGS = {
    "dust3r": Dust3RConfig(**SIZES),
    "dust3r-linear": Dust3RConfig(**SIZES, head="linear"),
    "mast3r": Mast3RConfig(**SIZES, descriptor_dim=5),
}


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def spec_of(config):
    return models.get("mast3r" if isinstance(config, Mast3RConfig) else "dust3r")


def build(config):
    return spec_of(config).build(config).eval()


def photos(batch, views=2, height=12, width=16):
    return torch.rand(batch, views, 3, height, width, generator=torch.Generator().manual_seed(1))


def assert_close(first, second):
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        assert (a is None) == (b is None), field.name
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, msg=lambda text, name=field.name: f"{name}: {text}")


@torch.no_grad()
def test_the_prediction_has_maps_of_both_views_in_the_frame_of_the_first(config):
    found = build(config)(photos(3))
    assert found.pointmap_world.shape == (3, 2, 12, 16, 3)
    assert found.confidence_world.shape == (3, 2, 12, 16)
    assert found.confidence_world.min() > 1
    if isinstance(config, Mast3RConfig):
        assert found.descriptors.shape == (3, 2, 12, 16, 5)
        torch.testing.assert_close(found.descriptors.norm(dim=-1), torch.ones(3, 2, 12, 16))
        assert found.confidence_descriptors.min() > 0
        assert found.metric_scale.tolist() == [1, 1, 1]
    else:
        assert found.descriptors is None
        assert found.metric_scale is None


@torch.no_grad()
def test_a_batch_of_one_equals_a_batch_of_many(config):
    model, images = build(config), photos(3)
    together = model(images)
    for row in range(3):
        assert_close(map_tensors(together, lambda value, row=row: value[row : row + 1]), model(images[row : row + 1]))


@torch.no_grad()
def test_chunks_of_the_heads_change_nothing(config):
    model, images = build(config), photos(3)
    assert_close(model(images, head_chunk=1), model(images))


@torch.no_grad()
def test_the_order_of_the_views_matters(config):
    model, images = build(config), photos(1)
    mirrored = model(images.flip(1)).pointmap_world.flip(1)
    assert (model(images).pointmap_world - mirrored).abs().max() > 1e-3


@torch.no_grad()
def test_one_view_is_paired_with_itself(config):
    model, images = build(config), photos(2, views=1)
    found, pair = model(images), model(images.repeat(1, 2, 1, 1, 1))
    assert_close(found, map_tensors(pair, lambda value: value if value.ndim == 1 else value[:, :1]))


@torch.no_grad()
def test_portrait_views_stored_transposed_give_the_maps_of_the_upright_pair(config):
    model, images = build(config), photos(2)
    found = model(images, portrait=torch.tensor([[False, True], [True, True]]))
    mixed = model.compare(images[:1, 0], images[:1, 1].transpose(-1, -2))
    upright = model(images[1:].transpose(-1, -2))
    for name in ("pointmap_world", "confidence_world"):
        maps = getattr(found, name)
        torch.testing.assert_close(maps[0, 0], getattr(mixed[0], name)[0, 0])
        torch.testing.assert_close(maps[0, 1], getattr(mixed[1], name)[0, 0].transpose(0, 1))
        torch.testing.assert_close(maps[1], getattr(upright, name)[0].transpose(1, 2))


@torch.no_grad()
def test_encoded_images_may_be_kept_for_several_pairs(config):
    model, images = build(config), photos(1, views=2)[0]
    kept = model.encode(images)
    first, second = model.decode(kept.rows(slice(0, 1)), kept.rows(slice(1, 2)))
    whole = model(images[None])
    torch.testing.assert_close(whole.pointmap_world[:, :1], first.pointmap_world)
    torch.testing.assert_close(whole.pointmap_world[:, 1:], second.pointmap_world)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_weight_that_is_used(config, checkpointing):
    model = build(dataclasses.replace(config, gradient_checkpointing=checkpointing)).train()
    found = model(photos(1))
    total = found.pointmap_world.sum() + found.confidence_world.sum()
    if found.descriptors is not None:
        total = total + (found.descriptors * photos(1)[:, :, :1, :, :].movedim(2, -1)).sum()
        total = total + found.confidence_descriptors.sum()
    total.backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    # A bias of keys shifts all logits of a query alike, so its gradient is rounding and nothing else.
    without = {name for name in without if not name.endswith("projk.bias")}
    unused = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert without == unused
    assert all(name == "mask_token" or ".fuse.3.unit_level." in name for name in unused)


@torch.no_grad()
def test_under_autocast_the_geometry_stays_in_float32(config):
    model, images = build(config), photos(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(images)
    assert found.pointmap_world.dtype == found.confidence_world.dtype == torch.float32
    exact = model(images).pointmap_world
    assert ((found.pointmap_world - exact).norm() / exact.norm()).item() < 0.05


def test_more_than_two_views_and_odd_sizes_are_refused(config):
    model = build(config)
    with pytest.raises(ConfigError, match="one or two views at a time, not 3"):
        model(photos(1, views=3))
    with pytest.raises(ConfigError, match="10x16 pixels"):
        model(photos(1, height=10))


def test_heads_too_narrow_for_two_axes_are_refused(config):
    with pytest.raises(ConfigError, match=r"decoder_dim=12 over decoder_heads=2.*multiple of 8"):
        dataclasses.replace(config, decoder_dim=12)


def test_a_file_with_one_decoder_fills_both_streams(config):
    model, other = build(config), build(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()
    official = {
        name: value for name, value in to_official(model, spec_of(config)).items() if not name.startswith("dec_blocks2")
    }
    load_official(other, spec_of(config), official, source="croco.pth")
    for first, second in zip(other.decoder.first.parameters(), other.decoder.second.parameters(), strict=True):
        assert torch.equal(first, second)
    torch.testing.assert_close(other.decoder.first.state_dict(), model.decoder.first.state_dict())
    with pytest.raises(CheckpointError, match="missing"):
        load_official(other, spec_of(config), {"enc_norm.bias": official["enc_norm.bias"]}, source="x.pth")


def test_unused_weights_are_left_out_where_there_is_no_place_for_them(config):
    lean, full = build(dataclasses.replace(config, unused_weights=False)), build(config)
    assert not [name for name, weight in lean.named_parameters() if not weight.requires_grad]
    load_official(lean, spec_of(config), to_official(full, spec_of(config)), source="x")
    assert torch.equal(lean.decoder.embed.weight, full.decoder.embed.weight)


COMPILED = """
import torch
from distill3d.models import dust3r, mast3r
sizes = dict(encoder_dim=16, encoder_depth=1, encoder_heads=2, decoder_dim=8, decoder_depth=2, decoder_heads=2,
    patch_size=4, dpt_channels=(4, 6, 8, 10), dpt_features=8, dpt_hidden=4)
images = torch.rand(1, 2, 3, 12, 16)
for model in (dust3r.Dust3R(dust3r.Dust3RConfig(**sizes)), mast3r.Mast3R(mast3r.Mast3RConfig(**sizes))):
    whole = torch.compile(model.eval(), backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(whole(images).pointmap_world, model(images).pointmap_world)
"""


@pytest.mark.slow
def test_the_networks_compile_in_one_graph():
    # In a process of its own: the checks of shapes that the test run adds cannot be compiled.
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
