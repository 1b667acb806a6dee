import dataclasses
import math

import pytest
import torch

from distill3d import models
from distill3d.errors import ConfigError
from distill3d.models.distill3r import Distill3R, Distill3RConfig, initialise_heads_

SPEC = models.get("distill3r")
TINY = SPEC.variants["tiny"]
MAPS = ("pointmap_world", "pointmap_camera", "confidence_world", "confidence_camera")
LEAN = dataclasses.replace(
    SPEC.variants["demo"],
    encoder_dim=32, encoder_depth=1, encoder_heads=2, encoder_table_side=3,
    fusion_dim=32, fusion_depth=2, fusion_heads=2, prior_side=4,
)  # fmt: skip


def images(views=3, height=42, width=56, batch=1):
    return torch.rand(batch, views, 3, height, width, generator=torch.Generator().manual_seed(7))


def assert_same(first, second, **tolerance):
    for name in MAPS:
        torch.testing.assert_close(getattr(first, name), getattr(second, name), **tolerance)


@pytest.mark.parametrize("name", ["laptop", "demo", "place_teacher", "tiny"])
@torch.no_grad()
def test_every_small_variant_gives_both_maps_for_any_multiple_of_the_patch(name):
    prediction = SPEC.build(SPEC.variants[name]).eval()(images(2, 28, 42))
    assert prediction.pointmap_world.shape == prediction.pointmap_camera.shape == (1, 2, 28, 42, 3)
    assert prediction.confidence_world.shape == prediction.confidence_camera.shape == (1, 2, 28, 42)
    assert all(torch.isfinite(getattr(prediction, field)).all() for field in MAPS)
    assert prediction.confidence_world.min() > 1


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("laptop", 10e6, 15e6),
        ("demo", 1e6, 2e6),
        ("place_teacher", 2e6, 3.7e6),
        ("general_teacher", 6e6, 7.5e6),
        ("tiny", 0, 0.3e6),
    ],
)
def test_variants_have_the_size_they_are_meant_to_have(name, low, high):
    count = sum(parameter.numel() for parameter in SPEC.build(SPEC.variants[name]).parameters())
    assert low < count < high


def test_sides_that_are_no_multiples_are_refused_with_a_size_that_works():
    with pytest.raises(ConfigError, match=r"30x56.*multiples of the patch size 14.*28x56"):
        Distill3R(TINY)(images(height=30))


@torch.no_grad()
@pytest.mark.parametrize("config", [TINY, LEAN], ids=["dpt", "linear"])
@pytest.mark.parametrize("chunk", [1, 2, 50])
def test_chunks_of_views_change_no_value(config, chunk):
    model, photos = Distill3R(config).eval(), images(3, batch=2)
    assert_same(model(photos), model(photos, head_chunk=chunk), rtol=1e-6, atol=1e-6)


def test_chunks_and_recomputation_change_no_gradient():
    gradients = []
    for recompute, chunk in ((False, None), (True, 1)):
        model = Distill3R(dataclasses.replace(TINY, gradient_checkpointing=recompute)).train()
        prediction = model(images(2), generator=torch.Generator().manual_seed(0), head_chunk=chunk)
        (prediction.pointmap_world.square().mean() + prediction.confidence_camera.log().mean()).backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["demo", "tiny", "paper"])
def test_every_weight_that_wants_a_gradient_gets_one(name):
    # Distributed training waits for the gradient of every such weight.
    config = SPEC.variants[name]
    if name == "paper":
        config = dataclasses.replace(TINY, unused_weights=True, encoder_norm=False)
    model = Distill3R(config).train()
    prediction = model(images(2), generator=torch.Generator().manual_seed(0))
    sum(getattr(prediction, field).square().mean() for field in MAPS).backward()
    missing = [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []


@torch.no_grad()
def test_maps_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = Distill3R(TINY).eval()(images(2))
    assert {getattr(prediction, name).dtype for name in MAPS} == {torch.float32}


def test_fresh_weights_repeat_and_follow_the_generator():
    torch.manual_seed(1)
    first = Distill3R(TINY).state_dict()
    torch.manual_seed(2)
    second = Distill3R(TINY).state_dict()
    other = Distill3R(TINY, generator=torch.Generator().manual_seed(5)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["fusion.embed.weight"], other["fusion.embed.weight"])


# --- view ids and the reference view


@torch.no_grad()
def test_random_ids_repeat_at_inference_and_need_a_generator_in_training():
    model = Distill3R(TINY).eval()
    assert_same(model(images()), model(images()), rtol=0, atol=0)
    drawn = model(images(), generator=torch.Generator().manual_seed(12))
    assert not torch.equal(drawn.pointmap_world, model(images()).pointmap_world)
    with pytest.raises(ConfigError, match="pass generator= or view_ids="):
        model.train()(images())


@torch.no_grad()
def test_given_ids_are_used_and_checked():
    model = Distill3R(dataclasses.replace(TINY, view_ids="sequential")).eval()
    assert_same(model(images()), model(images(), view_ids=torch.tensor([[0, 1, 2]])), rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"0 \.\. 49, found 0 \.\. 50"):
        model(images(), view_ids=torch.tensor([[0, 1, 50]]))
    with pytest.raises(ConfigError, match="3 views, but the table holds 2"):
        Distill3R(dataclasses.replace(TINY, num_view_ids=2)).eval()(images())


@torch.no_grad()
def test_without_ids_only_the_reference_view_is_special():
    model, photos = Distill3R(LEAN).eval(), images(4)
    straight = model(photos).pointmap_world
    swapped = model(photos[:, [0, 3, 2, 1]]).pointmap_world
    torch.testing.assert_close(straight[:, [0, 3, 2, 1]], swapped, rtol=1e-4, atol=1e-5)
    other = model(photos[:, [1, 0, 2, 3]]).pointmap_world
    assert not torch.allclose(other[:, [1, 0, 2, 3]], straight, atol=1e-3)


def test_no_ids_and_no_reference_embedding_is_refused():
    with pytest.raises(ConfigError, match="reference_embedding_std"):
        dataclasses.replace(TINY, view_ids="none")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_dim": 33}, "encoder_dim must be even and a multiple of encoder_heads, found 33 and 2"),
        ({"fusion_depth": 3}, "fusion_depth must be >= 4, found 3"),
        ({"patch_size": 0}, "patch_size must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(TINY, **changes)


# --- explicit choices, one default for training and inference


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"attention_scale": "log_ratio"},
        {"image_normalisation": "half"},
        {"encoder_norm": False},
        {"encoder_recipe": "dinov2_reg"},
        {"fusion_attention": "alternating"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_choice_changes_the_output_and_training_mode_does_not(changes):
    model, chosen = Distill3R(TINY).eval(), Distill3R(dataclasses.replace(TINY, **changes)).eval()
    chosen.load_state_dict(model.state_dict())
    ids = torch.tensor([[0, 1, 2]])
    found = chosen(images(), view_ids=ids)
    assert not torch.allclose(found.pointmap_world, model(images(), view_ids=ids).pointmap_world, rtol=1e-4)
    assert_same(found, chosen.train()(images(), view_ids=ids), rtol=0, atol=0)


def test_the_defaults_are_the_paper_s():
    config = Distill3RConfig()
    assert (config.image_normalisation, config.attention_scale, config.view_ids) == ("imagenet", "standard", "random")
    assert dataclasses.replace(config, unused_weights=True) == SPEC.variants["paper"]


# --- starting at the mean


def mean_maps(height=42, width=56):
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    depth = 2 + 0.5 * rows + 0.2 * columns
    return torch.stack([columns * depth, rows * depth, depth], dim=-1), depth.log()


@torch.no_grad()
def test_with_a_prior_the_fresh_network_starts_at_the_mean_maps():
    model = Distill3R(dataclasses.replace(LEAN, prior_side=14)).eval()
    world, log_depth = mean_maps()
    initialise_heads_(model, mean_world=world, mean_log_depth=log_depth, tan_half_fov=0.5, weight_factor=0.0)
    prediction = model(images())
    assert (prediction.pointmap_world - world).norm(dim=-1).max() < 0.25
    assert (prediction.pointmap_world - world).norm(dim=-1).mean() < 0.05
    torch.testing.assert_close(prediction.pointmap_camera[0, 0, ..., 2], log_depth.exp(), rtol=0.05, atol=0)
    x, z = prediction.pointmap_camera[0, 0, 0, -1, 0], prediction.pointmap_camera[0, 0, 0, -1, 2]
    assert (x / z).item() == pytest.approx(0.5, rel=0.03)
    torch.testing.assert_close(prediction.confidence_world, torch.full((1, 3, 42, 56), 2.0))


@torch.no_grad()
@pytest.mark.parametrize("config", [TINY, dataclasses.replace(LEAN, prior_side=0)], ids=["dpt exp", "linear"])
def test_without_a_prior_it_starts_at_their_average(config):
    model = Distill3R(config).eval()
    world, log_depth = mean_maps()
    initialise_heads_(
        model, mean_world=world, mean_log_depth=log_depth, mean_log_confidence=math.log(3), weight_factor=0.0
    )
    prediction = model(images())
    for name in MAPS[:2]:
        points = getattr(prediction, name)
        assert points.flatten(0, 3).std(dim=0)[2] < 0.05
        assert points[..., 2].mean().item() == pytest.approx(2.0, rel=0.15)
    torch.testing.assert_close(prediction.confidence_camera, torch.full((1, 3, 42, 56), 4.0), rtol=1e-4, atol=0)
