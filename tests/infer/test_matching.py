import pytest
import torch
from safetensors.torch import load_file

from distill3d.errors import ConfigError
from distill3d.infer import matching
from distill3d.infer.matching import match_pixels, nearest_descriptors, reciprocal_matches, symmetric_matches


def unit(*shape, seed=0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=-1)


@pytest.fixture
def shifted():
    """A view, and one that shows the same two columns further to the right."""
    first = unit(12, 16, 8)
    second = unit(12, 16, 8, seed=1)
    second[:, 2:] = first[:, :-2]
    return first, second


@pytest.mark.parametrize("subsample", [8, 2])
def test_the_matches_are_those_of_the_reference_code(fixtures, subsample):
    golden = load_file(fixtures / "mast3r" / "golden.safetensors")
    found = reciprocal_matches(golden["A.desc1"][0], golden["A.desc2"][0], subsample=subsample)
    assert torch.equal(found.first, golden[f"match.s{subsample}.xy1"])
    assert torch.equal(found.second, golden[f"match.s{subsample}.xy2"])


def test_every_match_is_reciprocal_and_starting_everywhere_finds_all(shifted):
    first, second = shifted
    found = reciprocal_matches(first, second, subsample=1)
    product = first.flatten(0, 1) @ second.flatten(0, 1).T
    there, back = product.argmax(dim=1), product.argmax(dim=0)
    expected = [(i, int(there[i])) for i in range(len(there)) if int(back[there[i]]) == i]
    assert [(y * 16 + x, v * 16 + u) for (x, y), (u, v) in
            zip(found.first.tolist(), found.second.tolist(), strict=True)] == expected  # fmt: skip


def test_a_shift_is_found(shifted):
    found = reciprocal_matches(*shifted, subsample=2)
    seen = found.first[:, 0] < 14
    assert seen.sum() > 30
    assert ((found.second - found.first)[seen] == torch.tensor([2, 0])).all()


def test_given_pixels_keep_those_that_lead_back(shifted):
    pixels = torch.tensor([[3, 4], [15, 0], [0, 11]])
    found = match_pixels(pixels, *shifted)
    assert {tuple(pair) for pair in found.first.tolist()} >= {(3, 4), (0, 11)}
    place = found.first.tolist().index([3, 4])
    assert found.second[place].tolist() == [5, 4]
    assert len(match_pixels(pixels, *shifted, tolerance_px=100).first) == 3


def test_both_directions_are_joined_without_the_border(shifted):
    first, second = shifted
    confidence = torch.rand(12, 16, generator=torch.Generator().manual_seed(3))
    found = symmetric_matches(first, second, confidence, torch.full((12, 16), 0.5), subsample=4, border=3)
    mirrored = symmetric_matches(second, first, torch.full((12, 16), 0.5), confidence, subsample=4, border=3)
    pairs = set(zip(map(tuple, found.first.tolist()), map(tuple, found.second.tolist()), strict=True))
    assert pairs == set(zip(map(tuple, mirrored.second.tolist()), map(tuple, mirrored.first.tolist()), strict=True))
    assert len(pairs) == len(found.first) > 3
    assert found.first.min() >= 3
    assert (found.first < torch.tensor([13, 9])).all()
    x, y = found.first.T
    torch.testing.assert_close(found.confidence, confidence[y, x].clamp(max=0.5))


def test_blocks_change_nothing(monkeypatch):
    queries, others = unit(70, 6), unit(90, 6, seed=1)
    whole = nearest_descriptors(queries, others)
    monkeypatch.setattr(matching, "BLOCK", 16)
    assert torch.equal(nearest_descriptors(queries, others), whole)


def test_a_grid_without_distance_is_refused(shifted):
    with pytest.raises(ConfigError, match="subsample=0"):
        reciprocal_matches(*shifted, subsample=0)
