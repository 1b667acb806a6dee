import dataclasses
import subprocess
import sys

import pytest
import torch

from distill3d import models
from distill3d.errors import ConfigError

SPEC = models.get("moge")
FIELDS = ("pointmap_camera", "confidence_camera", "normal", "metric_scale")
TOKENS = 20


def photos(batch=1, views=1, height=40, width=50):
    return torch.rand(batch, views, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module", params=["tiny1", "tiny2"])
def model(request):
    return SPEC.build(SPEC.variants[request.param]).eval()


def assert_same(first, second):
    for name in FIELDS:
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_photos_of_any_size_give_maps_of_their_size(model):
    found = model(photos(2, 3, 33, 71), num_tokens=TOKENS)
    assert found.pointmap_camera.shape == (2, 3, 33, 71, 3)
    assert found.valid.dtype == torch.bool
    assert found.pointmap_world is None
    assert (found.pointmap_camera[..., 2] > 0).all()
    if model.config.normals:
        torch.testing.assert_close(found.normal.norm(dim=-1), torch.ones(2, 3, 33, 71))
        assert found.metric_scale.shape == (2, 3)
        assert model(photos(2), num_tokens=TOKENS).metric_scale.shape == (2,)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_every_photo_is_seen_alone(model, chunk):
    images = photos(2, 3)
    together = model(images, num_tokens=TOKENS, head_chunk=chunk)
    for row in range(2):
        for view in range(3):
            alone = model(images[row : row + 1, view : view + 1], num_tokens=TOKENS)
            part = {name: getattr(together, name) for name in FIELDS}
            part = {
                name: None if value is None else value[row : row + 1, view : view + 1] for name, value in part.items()
            }
            if part["metric_scale"] is not None:
                part["metric_scale"] = part["metric_scale"][:, 0]
            assert_same(dataclasses.replace(alone, **part), alone)


def test_every_weight_that_wants_a_gradient_gets_one(model):
    images = photos(1, 2).requires_grad_()
    found = model(images, num_tokens=TOKENS)
    model.zero_grad()
    sum(value.square().mean() for name in FIELDS if (value := getattr(found, name)) is not None).backward()
    missing = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []
    assert images.grad.abs().sum() > 0


@torch.no_grad()
def test_the_level_decides_how_finely_the_encoder_looks(model):
    seen = []
    hook = model.get_submodule("backbone" if model.config.version == 1 else "encoder.backbone").patch_embed
    handle = hook.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[1]))
    small = dataclasses.replace(model.config, num_tokens_range=(12, 48))
    model.config, kept = small, model.config
    try:
        model(photos(), resolution_level=0)
        model(photos())
    finally:
        model.config = kept
        handle.remove()
    assert seen[0] <= 16
    assert 30 <= seen[1] <= 50


def test_a_level_or_a_grid_that_is_none_is_refused(model):
    with pytest.raises(ConfigError, match=r"0 \.\. 9, found 10"):
        model(photos(), resolution_level=10)
    with pytest.raises(ConfigError, match="1 tokens make a grid of"):
        model(photos(height=10, width=200), num_tokens=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_heads": 5}, "multiple of 5"),
        ({"taken_blocks": (2, 4)}, "must lie in"),
        ({"widths": (8, 8)}, "equally many"),
        ({"normals": True}, "no normals"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SPEC.variants["tiny1"], **change)


def test_fresh_weights_repeat():
    first, second = (SPEC.build(SPEC.variants["tiny2"]).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_networks_compile_in_one_piece():
    # In a process of its own: the checks of shapes that the tests switch on are nothing a compiler can read.
    code = """
import torch
from distill3d import models
spec = models.get("moge")
for name in ("tiny1", "tiny2"):
    model = spec.build(spec.variants[name]).eval()
    compiled = torch.compile(model.maps, backend="eager", fullgraph=True)
    images = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(compiled(images, 20).points, model.maps(images, 20).points)
print("same")
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == "same", shown.stderr[-2000:]
