import pytest
import torch

from distill3d.data.render.patterns import RESOLUTION
from distill3d.data.render.textures import texture_bank, texture_index
from distill3d.errors import ConfigError


def sample(name, u, v, footprint):
    u, v = torch.as_tensor(u), torch.as_tensor(v)
    number = torch.full((len(u),), texture_index(name))
    return texture_bank().sample(number, u, v, torch.full_like(u, footprint))


def test_an_unknown_texture_is_named_beside_those_there_are():
    with pytest.raises(ConfigError, match=r"'wodd'.*planks"):
        texture_index("wodd")


def test_patterns_repeat_after_one_without_a_seam():
    generator = torch.Generator().manual_seed(0)
    u, v = torch.rand(2, 200, generator=generator)
    for name in ("planks", "marble", "bricks"):
        assert torch.allclose(sample(name, u, v, 0.01), sample(name, u + 3, v - 2, 0.01), atol=1e-3)
    edge = torch.full((50,), 1e-5)
    line = torch.linspace(0, 1, 50)
    assert torch.allclose(sample("plaster", edge, line, 0.0), sample("plaster", 1 - edge, line, 0.0), atol=2e-2)


def test_a_texel_is_found_at_its_centre():
    size = RESOLUTION
    u, v = torch.tensor([(10 + 0.5) / size]), torch.tensor([(200 + 0.5) / size])
    number = texture_index("grain")
    row = number * size * size + 200 * size + 10
    assert torch.allclose(sample("grain", u, v, 0.0)[0], texture_bank().texels[row], atol=1e-5)


def test_distance_fades_a_pattern_into_its_mean():
    u, v = torch.rand(2, 400, generator=torch.Generator().manual_seed(1))
    near, far = sample("checker", u, v, 0.002), sample("checker", u, v, 4.0)
    assert near.std(dim=0)[0] > 0.4
    assert far.std(dim=0).max() < 1e-3
    assert torch.allclose(near.mean(dim=0), far.mean(dim=0), atol=0.1)


def test_the_bank_holds_finite_shares():
    texels = texture_bank().texels
    assert torch.isfinite(texels).all()
    assert texels.min() >= 0
    assert texels[:, :2].max() <= 1
