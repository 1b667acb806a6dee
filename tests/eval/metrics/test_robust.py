import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.eval.metrics import robust
from distill3d.eval.metrics.robust import (
    fit_affine,
    fit_affine_least_squares,
    fit_affine_many,
    fit_points_scale,
    fit_points_scale_shift,
    fit_points_scale_shift_z,
    fit_points_shift,
    fit_points_shift_z,
    fit_scale,
)

quick = settings(deadline=None, max_examples=15)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@quick
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-5, 5))
def test_a_known_scale_and_shift_are_found_though_a_third_is_wrong(seed, scale, shift):
    x, weight = draw(seed, 60), torch.ones(60)
    y = scale * x + shift
    y[::3] += 50
    assert fit_affine(x, y, weight) == pytest.approx((scale, shift), rel=1e-6, abs=1e-6)
    y = scale * x
    y[::3] += 50
    assert fit_scale(x, y, weight, truncation=0.5).scale == pytest.approx(scale, rel=1e-6)


@quick
@given(st.integers(0, 1000))
def test_points_take_one_scale_and_the_shifts_that_are_allowed(seed):
    points, weight = draw(seed, 40, 3), draw(seed, 40).abs() + 0.1
    assert fit_points_scale(points, 3 * points, weight).scale == pytest.approx(3)
    target = 3 * points + torch.tensor([0.0, 0, 2])
    assert fit_points_scale_shift_z(points, target, weight).shift == pytest.approx((0, 0, 2), abs=1e-9)
    target = 3 * points + torch.tensor([1.0, -4, 2])
    fit = fit_points_scale_shift(points, target, weight)
    assert fit.shift == pytest.approx((1, -4, 2), abs=1e-9)
    torch.testing.assert_close(fit.apply(points), target)
    assert fit_points_shift(points, points + torch.tensor([1.0, -4, 2]), weight).shift == pytest.approx((1, -4, 2))
    assert fit_points_shift_z(points, points + 5, weight).shift == pytest.approx((0, 0, 5))


@quick
@given(st.integers(0, 1000), st.floats(0.05, 3))
def test_the_truncated_loss_is_the_one_that_a_table_of_all_candidates_gives(seed, truncation):
    x, y, weight = draw(seed, 50), draw(seed + 1, 50), draw(seed + 2, 50).abs()
    fit = fit_scale(x, y, weight, truncation)
    candidates = y / x
    table = (weight * (candidates[:, None] * x - y).abs()).clamp(max=truncation).sum(dim=-1)
    assert fit.loss == pytest.approx(float(table.min()), rel=1e-6)
    assert float(table[fit.decided_by]) == pytest.approx(fit.loss, rel=1e-9)
    assert fit_scale(x, y, weight, 1e9).loss == pytest.approx(fit_scale(x, y, weight).loss)


@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_leaving_out_hopeless_anchors_changes_nothing(monkeypatch, seed, noise):
    points = draw(seed, 300, 3)
    target = 2 * points + noise * draw(seed + 1, 300, 3) - 1
    weight = draw(seed + 2, 300).abs()
    fits = (fit_points_scale_shift, fit_points_scale_shift_z)
    quick_ones = [fit(points, target, weight) for fit in fits] + [fit_affine(points[:, 2], target[:, 2], weight)]
    monkeypatch.setattr(robust, "_FEW_ANCHORS", 10**9)
    plain = [fit(points, target, weight) for fit in fits] + [fit_affine(points[:, 2], target[:, 2], weight)]
    assert quick_ones == plain


def test_the_best_line_is_no_worse_than_any_other():
    x, y, weight = draw(0, 80), draw(1, 80), draw(2, 80).abs()

    def loss(scale, shift):
        return float((weight * (scale * x + shift - y).abs()).sum())

    best = fit_affine(x, y, weight)
    for scale, shift in draw(3, 200, 2).tolist():
        assert loss(*best) <= loss(best.scale + 0.1 * scale, best.shift + 0.1 * shift) + 1e-12


@pytest.mark.parametrize("few", [40, 2**16])
@pytest.mark.parametrize("seed", range(6))
def test_the_line_of_millions_is_the_line_of_every_anchor(monkeypatch, seed, few):
    monkeypatch.setattr(robust, "_FEW_POINTS", few)
    x, y = draw(seed, 301), draw(seed + 1, 301)
    y = 10.0 ** (seed - 3) * (3 * x - 1 + 0.2 * y / (0.05 + draw(seed + 2, 301).abs()))  # heavy tails, many sizes
    if seed % 2:
        x, y = (x * 20).round() / 20, (y * 4).round() / 4  # many ties
    plain, quick = fit_affine(x, y, torch.ones_like(x)), fit_affine_many(x, y)

    def loss(fit):
        return float((fit.scale * x + fit.shift - y).abs().sum())

    assert loss(quick) == pytest.approx(loss(plain), rel=1e-12)


def test_a_line_without_error_is_found_to_the_last_digit():
    x = draw(0, 100_000).double()
    assert fit_affine_many(x, 3 * x - 2) == pytest.approx((3, -2), rel=1e-14)
    assert fit_affine_many(x, torch.zeros_like(x)) == pytest.approx((0, 0), abs=1e-14)
    for bad in (torch.full_like(x, math.nan), torch.ones_like(x), torch.full_like(x, math.inf)):
        assert math.isnan(fit_affine_many(bad, x).scale)
    assert math.isnan(fit_affine_many(x[:1], x[:1]).scale)


def test_points_without_weight_may_hold_anything():
    x, y, weight = draw(0, 20), draw(1, 20), torch.ones(20)
    before = fit_affine(x[:15], y[:15], weight[:15])
    x[15:], weight[15:] = torch.nan, 0
    assert fit_affine(x, y, weight) == before


def test_where_nothing_is_determined_nothing_is_said():
    none, one = torch.zeros(0), torch.ones(1)
    assert math.isnan(fit_scale(none, none, none).scale)
    assert fit_scale(torch.zeros(3), torch.ones(3), torch.ones(3)).decided_by == -1
    assert all(math.isnan(value) for value in fit_affine(one, one, one))
    assert all(math.isnan(value) for value in fit_affine(torch.ones(5), draw(0, 5), torch.ones(5)))
    for bad in (torch.zeros(500, 3), torch.full((500, 3), math.nan), torch.full((500, 3), math.inf)):
        assert math.isnan(fit_points_scale_shift(bad, draw(0, 500, 3), torch.ones(500)).scale)
    assert math.isnan(fit_affine_least_squares(torch.ones(5), draw(0, 5)).scale)
    assert math.isnan(fit_points_scale_shift(torch.zeros(0, 3), torch.zeros(0, 3), none).scale)
    assert fit_affine_least_squares(torch.tensor([0.0, 1]), torch.tensor([1.0, 3])) == pytest.approx((2, 1))
