"""Robust alignments of depth and points: least weighted absolute distance, solved exactly (MoGe, appendix B).

Every fit is `target = scale * source + shift`. "Exact" means that the minimum is found among the finitely many places
where it can be, not approached: no step size, no start, no iterations (but for `fit_affine_many`, which comes to the
same place by halving). The shifts are those that make one of the points
fit without error (an *anchor*); each anchor is tried with its own best scale. Where several scales are equally good the
smallest is taken. Everything is float64 on the device of the arguments; points without weight are ignored. What is
not finite, or stands still where a scale is asked for, gives NaN.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Series = Float[Tensor, " count"]
Points = Float[Tensor, "count 3"]

_ELEMENTS_AT_ONCE = 2**22
"""Of the anchors-by-points table: 32 MB for each array of it."""
_FEW_POINTS = 2**16
"""As many tell where to look for the scale of millions."""
_FEW_ANCHORS, _ZOOMS, _GRID, _EXACT = 32, 6, 65, 1e-13


class ScaleFit(NamedTuple):
    """One scale, what is left over, and the point that fixes it; NaN and -1 where nothing does."""

    scale: float
    loss: float
    decided_by: int


class AffineFit(NamedTuple):
    """Scale and shift; NaN where nothing determines them."""

    scale: float
    shift: float


class PointFit(NamedTuple):
    """One scale for all axes and a shift for each."""

    scale: float
    shift: tuple[float, float, float]

    def apply(self, points: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
        """Take points of the source to the target."""
        return self.scale * points.double() + torch.tensor(self.shift, dtype=torch.float64, device=points.device)


def fit_scale(source: Series, target: Series, weight: Series, truncation: float | None = None) -> ScaleFit:
    """Minimise `sum w |a x - y|` over `a`, or `sum min(truncation, w |a x - y|)`.

    Without truncation it is a weighted median of the ratios y / x; with it, the best of all ratios.
    """
    x, y, w = (values.double() for values in (source, target, weight))
    scale, loss, index = _best_scales(x[None], y[None], w[None], truncation)
    if not bool((w * x.abs() > 0).any()):
        return ScaleFit(math.nan, math.nan, -1)
    return ScaleFit(float(scale[0]), float(loss[0]), int(index[0]))


def fit_affine(source: Series, target: Series, weight: Series, truncation: float | None = None) -> AffineFit:
    """Minimise `sum w |a x + b - y|` over `a` and `b`; with truncation the cost grows with the square of the points."""
    x, y, w = _weighted(source, target, weight)
    scale, anchor = _best_anchor(x[:, None], y[:, None], w, (True,), truncation)
    return AffineFit(scale, float(y[anchor] - scale * x[anchor]) if anchor >= 0 else math.nan)


def fit_points_scale(source: Points, target: Points, weight: Series, truncation: float | None = None) -> ScaleFit:
    """Minimise over one scale the weighted distance along all three axes together."""
    return fit_scale(source.flatten(), target.flatten(), weight.repeat_interleave(3), truncation)


def fit_points_scale_shift_z(
    source: Points, target: Points, weight: Series, truncation: float | None = None
) -> PointFit:
    """Minimise over one scale and a shift of z."""
    return _fit_points(source, target, weight, truncation, shifted=(False, False, True))


def fit_points_scale_shift(source: Points, target: Points, weight: Series, truncation: float | None = None) -> PointFit:
    """Minimise over one scale and a shift of all axes, among those shifts that take a whole point onto its target."""
    return _fit_points(source, target, weight, truncation, shifted=(True, True, True))


def fit_points_shift(source: Points, target: Points, weight: Series) -> PointFit:
    """Minimise over a shift alone: for every axis the weighted median of the differences."""
    x, y, z = (_weighted_median((target - source)[:, axis], weight) for axis in range(3))
    return PointFit(1.0, (x, y, z))


def fit_points_shift_z(source: Points, target: Points, weight: Series) -> PointFit:
    """Minimise over a shift of z alone."""
    return PointFit(1.0, (0.0, 0.0, _weighted_median((target - source)[:, 2], weight)))


def fit_affine_least_squares(source: Series, target: Series) -> AffineFit:
    """Least squares of scale and shift, all points alike; NaN where the source is one value."""
    x, y = source.double(), target.double()
    if len(x) < 2 or not bool((x != x[0]).any()):
        return AffineFit(math.nan, math.nan)
    centred = x - x.mean()
    scale = (centred * (y - y.mean())).sum() / centred.square().sum()
    return AffineFit(float(scale), float(y.mean() - scale * x.mean()))


def fit_affine_many(source: Series, target: Series) -> AffineFit:
    """Minimise `sum |a x + b - y|` over `a` and `b` for millions of points, all alike.

    For any scale the best shift is the median of what is left, and the slope of the loss there tells on which side the
    best scale lies, since the loss is convex. So the scale is the place where the slope changes its sign, found to the
    last digit by Brent's method: some dozens of medians, where trying every anchor takes the square of the points.
    """
    x, y = source.double().cpu().numpy(), target.double().cpu().numpy()
    if len(x) < 2 or not np.isfinite(x).all() or not np.isfinite(y).all() or not np.ptp(x):
        return AffineFit(math.nan, math.nan)
    from scipy.optimize import brentq  # slow to import

    far = x - x.mean()
    middle = (len(x) - 1) // 2

    def slope(scale: float) -> float:
        left = y - scale * x
        median = np.partition(left, middle)[middle]
        below, above = left < median, left > median
        at = ~(below | above)
        # Points at the median take whatever share makes the slope along the shift zero.
        share = (int(above.sum()) - int(below.sum())) / int(at.sum())
        return float(far[below].sum() - far[above].sum() + share * far[at].sum())

    few = slice(None, None, max(1, len(x) // _FEW_POINTS))
    start = fit_affine_many(source[few], target[few]).scale if len(x) >= 2 * _FEW_POINTS else math.nan
    if not math.isfinite(start):
        start = float((far * (y - y.mean())).sum() / (far * far).sum())
    low = high = start
    step = 1e-3 * abs(start) or 1e-3
    while slope(low) > 0:
        low, step = low - step, 4 * step
    while slope(high) < 0:
        high, step = high + step, 4 * step
    scale = low if low == high else float(brentq(slope, low, high, xtol=1e-16 * max(-low, high), maxiter=500))
    return AffineFit(scale, float(np.partition(y - scale * x, middle)[middle]))


def _weighted(source: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    used = weight > 0
    return source[used].double(), target[used].double(), weight[used].double()


def _weighted_median(values: Tensor, weight: Tensor) -> float:
    # The scale that takes ones to the values: the same sorting, the same choice among ties.
    return fit_scale(torch.ones_like(values), values, weight).scale


def _fit_points(
    source: Points, target: Points, weight: Series, truncation: float | None, *, shifted: tuple[bool, bool, bool]
) -> PointFit:
    x, y, w = _weighted(source, target, weight)
    scale, anchor = _best_anchor(x, y, w, shifted, truncation)
    if anchor < 0:
        return PointFit(math.nan, (math.nan, math.nan, math.nan))
    shift = torch.where(torch.tensor(shifted, device=x.device), y[anchor] - scale * x[anchor], 0.0)
    return PointFit(scale, (float(shift[0]), float(shift[1]), float(shift[2])))


def _best_anchor(
    x: Float[Tensor, "count axes"],
    y: Float[Tensor, "count axes"],
    w: Float[Tensor, " count"],
    shifted: tuple[bool, ...],
    truncation: float | None,
) -> tuple[float, int]:
    """Give the best scale with its anchor, the first one on ties; NaN and -1 where nothing determines a scale.

    Of an anchor's loss a lower bound is cheap (`_lower_bounds`): only anchors whose bound is not above the best loss
    known so far are solved. This changes what is computed, not what comes out.
    """
    moves = torch.tensor(shifted, device=x.device)
    stands_still = not bool((x[:, moves] != x[:1, moves]).any()) and not bool((x[:, ~moves] != 0).any())
    if stands_still or not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
        return math.nan, -1
    rivals = torch.arange(len(x), device=x.device)
    if truncation is None and len(x) > _FEW_ANCHORS:
        some = rivals[:: math.ceil(len(x) / 8)]
        best, scale, anchor = _solve_anchors(x, y, w, shifted, some, None)
        if best <= _EXACT * float((w * y.abs().sum(dim=-1)).sum()):
            return scale, anchor  # every anchor fits like this one
        low, high = scale - abs(scale) / 2, scale + abs(scale) / 2
        for _ in range(_ZOOMS):
            if len(rivals) <= _FEW_ANCHORS or not math.isfinite(low) or low >= high:
                break
            scales = torch.linspace(low, high, _GRID, dtype=x.dtype, device=x.device)
            bound, cell = _lower_bounds(x, y, w, shifted, rivals, scales)
            likely = rivals[bound.argsort()[:4]].sort().values
            best = min(best, _solve_anchors(x, y, w, shifted, likely, None)[0])
            keep = ~(bound > best * (1 + 1e-9))
            rivals, cell = rivals[keep], cell[keep]
            inside = cell[cell >= 0]
            if len(inside) < len(cell) or len(inside) == 0:
                break  # some may have their best scale outside the grid: a finer one says nothing about them
            low, high = float(scales[inside.min()]), float(scales[inside.max() + 1])
    _, scale, anchor = _solve_anchors(x, y, w, shifted, rivals, truncation)
    return scale, anchor


def _solve_anchors(
    x: Tensor, y: Tensor, w: Tensor, shifted: tuple[bool, ...], anchors: Tensor, truncation: float | None
) -> tuple[float, float, int]:
    """Best loss, scale and anchor of some anchors, by solving each."""
    moves = torch.tensor(shifted, dtype=x.dtype, device=x.device)
    weights = w.repeat_interleave(x.shape[1])
    best = (math.inf, math.nan, -1)
    for some in torch.split(anchors, max(1, _ELEMENTS_AT_ONCE // max(x.numel(), 1))):
        near_x, near_y = ((values[None] - (moves * values[some])[:, None]).flatten(1) for values in (x, y))
        scale, loss, _ = _best_scales(near_x, near_y, weights.expand(len(some), -1), truncation)
        # An anchor whose neighbours all coincide with it says nothing about the scale.
        loss = torch.where(torch.isfinite(scale), loss, torch.inf)
        place = int(loss.argmin()) if len(loss) else -1
        if place >= 0 and float(loss[place]) < best[0]:
            best = (float(loss[place]), float(scale[place]), int(some[place]))
    return best


def _lower_bounds(
    x: Tensor, y: Tensor, w: Tensor, shifted: tuple[bool, ...], anchors: Tensor, scales: Tensor
) -> tuple[Float[Tensor, " anchors"], Int[Tensor, " anchors"]]:
    """Bound every anchor's least loss from below, and say between which of the scales it lies (-1: outside of them).

    With one scale for all anchors the residuals r = a x - y are sorted once, and running sums give every anchor's loss
    `sum w |r - r_i|` and its slope. The loss is convex in the scale, so it lies above the tangents at two neighbours.
    """
    value = x.new_zeros(len(scales), len(anchors))
    slope = torch.zeros_like(value)
    for axis, moves in enumerate(shifted):
        residual = scales[:, None] * x[:, axis] - y[:, axis]
        if not moves:
            value += (w * residual.abs()).sum(dim=-1, keepdim=True)
            slope += (w * x[:, axis] * residual.sign()).sum(dim=-1, keepdim=True)
            continue
        order = residual.argsort(dim=-1)
        back = order.argsort(dim=-1)[:, anchors]
        mass, moment, turn = (
            (weighted if weighted.ndim == 2 else weighted.expand_as(residual)).gather(-1, order).cumsum(dim=-1)
            for weighted in (w, w * residual, w * x[:, axis])
        )
        own, place = residual[:, anchors], x[anchors, axis]
        below, total = mass.gather(-1, back), mass[:, -1:]
        value += own * (2 * below - total) + moment[:, -1:] - 2 * moment.gather(-1, back)
        slope += turn[:, -1:] - 2 * turn.gather(-1, back) + place * (2 * below - total)
    falls = slope[:-1] <= 0
    holds = falls & (slope[1:] >= 0)
    cell = holds.to(torch.uint8).argmax(dim=0)
    found = holds.any(dim=0)
    first, second = (
        torch.stack([table.gather(0, place[None])[0] for table in (value, slope, scales[:, None].expand_as(value))])
        for place in (cell, cell + 1)
    )
    gap = (first[0] - second[0] + second[1] * (second[2] - first[2])) / (second[1] - first[1])
    bound = torch.where(second[1] > first[1], first[0] + first[1] * gap, torch.minimum(first[0], second[0]))
    return torch.where(found, bound, -torch.inf), torch.where(found, cell, -1)


def _best_scales(
    x: Float[Tensor, "rows count"],
    y: Float[Tensor, "rows count"],
    w: Float[Tensor, "rows count"],
    truncation: float | None,
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Best scale, loss and index of the deciding point, for rows of independent problems."""
    if x.shape[-1] == 0:
        return x.new_full((len(x),), torch.nan), x.new_zeros(len(x)), torch.zeros(len(x), dtype=torch.int64)
    turn = torch.where(x < 0, -1.0, 1.0)
    x, y = x * turn, y * turn
    pull = w * x
    ratio = torch.where(pull > 0, y / x, torch.inf)  # never chosen: it has no pull, and it comes last
    if truncation is None:
        order = ratio.argsort(dim=-1, stable=True)
        gathered = pull.gather(-1, order).cumsum(dim=-1)
        first = (2 * gathered - gathered[:, -1:] >= 0).to(torch.uint8).argmax(dim=-1, keepdim=True)
        index = order.gather(-1, first)
        scale = ratio.gather(-1, index)
        loss = (w * (scale * x - y).abs()).sum(dim=-1)
        return scale[:, 0], loss, index[:, 0]
    index = _truncated_losses(ratio, y, w, pull, truncation).argmin(dim=-1, keepdim=True)
    scale = ratio.gather(-1, index)
    loss = (w * (scale * x - y).abs()).clamp(max=truncation).sum(dim=-1)
    return scale[:, 0], loss, index[:, 0]


def _truncated_losses(ratio: Tensor, y: Tensor, w: Tensor, pull: Tensor, truncation: float) -> Tensor:
    """Give `sum min(T, w |a x - y|)` at every ratio a; infinite where the ratio is.

    Each term is flat, falls to 0 at its ratio, rises and is flat again, so the sum is a line between the sorted
    corners of all terms: two running sums instead of a table of all pairs.
    """
    acts = pull > 0
    reach = torch.where(acts, truncation / torch.where(acts, pull, 1.0), 0.0)
    middle = torch.where(acts, ratio, 0.0)
    bend = torch.where(acts, pull, 0.0)
    corners = torch.cat([middle - reach, middle, middle + reach], dim=-1)
    slopes, order = torch.cat([-bend, 2 * bend, -bend], dim=-1), corners.argsort(dim=-1, stable=True)
    placed = corners.gather(-1, order)
    slope = slopes.gather(-1, order).cumsum(dim=-1)
    steps = torch.zeros_like(placed)
    steps[:, 1:] = slope[:, :-1] * (placed[:, 1:] - placed[:, :-1])
    constant = torch.where(acts, truncation, (w * y.abs()).clamp(max=truncation)).sum(dim=-1, keepdim=True)
    at_corners = torch.empty_like(placed).scatter_(-1, order, constant + steps.cumsum(dim=-1))
    count = ratio.shape[-1]
    return torch.where(acts, at_corners[:, count : 2 * count], torch.inf)
