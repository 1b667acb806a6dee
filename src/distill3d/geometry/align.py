"""Similarity alignment of corresponding points: scale, rotation, translation (Umeyama 1991), weighted and batched."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.errors import GeometryError
from distill3d.geometry.poses import project_to_rotation

Degenerate = Literal["raise", "identity"]


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """`target = scale * rotation @ source + translation`, for a batch of any shape."""

    scale: Float[Tensor, "*batch"]
    rotation: Float[Tensor, "*batch 3 3"]
    translation: Float[Tensor, "*batch 3"]
    determined: Bool[Tensor, "*batch"] | None = None
    """False where the points could not tell the rotation, and the identity was taken; None for a given similarity."""

    def apply(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Take points of the source frame to the target frame."""
        return self.scale[..., None, None] * (points @ self.rotation.transpose(-1, -2)) + self.translation[..., None, :]

    def matrix(self) -> Float[Tensor, "*batch 4 4"]:
        """Give the 4x4 matrix; its upper left block is `scale * rotation`, so it is a pose only where scale is 1."""
        top = torch.cat([self.scale[..., None, None] * self.rotation, self.translation[..., None]], dim=-1)
        bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=top.dtype, device=top.device).expand(*top.shape[:-2], 1, 4)
        return torch.cat([top, bottom], dim=-2)

    def inverse(self) -> "Similarity":
        """Give the similarity from the target frame back to the source frame."""
        rotation = self.rotation.transpose(-1, -2)
        scale = 1 / self.scale
        translation = -scale[..., None] * (rotation @ self.translation[..., None])[..., 0]
        return Similarity(scale=scale, rotation=rotation, translation=translation, determined=self.determined)

    def compose(self, first: "Similarity") -> "Similarity":
        """Give the similarity that applies `first` and then this one: `a_from_b.compose(b_from_c)` is `a_from_c`."""
        turned = (self.rotation @ first.translation[..., None])[..., 0]
        return Similarity(
            scale=self.scale * first.scale,
            rotation=self.rotation @ first.rotation,
            translation=self.scale[..., None] * turned + self.translation,
        )


def umeyama(
    source: Float[Tensor, "*batch points 3"],
    target: Float[Tensor, "*batch points 3"],
    weights: Float[Tensor, "*batch points"] | None = None,
    *,
    with_scale: bool = True,
    degenerate: Degenerate = "raise",
) -> Similarity:
    """Fit the similarity from `source` to `target` with the least weighted squared distance, in closed form.

    Computed in float64 and given in the dtype of `source`. Points of weight 0 are ignored whatever they hold, NaN
    included. The gradient is finite (see `project_to_rotation`), so this may stand inside a loss.

    Args:
        weights: at least 0; only their ratios matter. None weighs all points alike.
        with_scale: False keeps the scale at 1 (a rigid registration).
        degenerate: what to do where the rotation is not determined (fewer than three points, all on a line, all equal,
            no weight, or as well explained by a mirror image): "raise", or "identity", which keeps the axes, fits
            scale and translation alone, and marks the entry in `Similarity.determined`.

    Raises:
        GeometryError: degenerate points and `degenerate="raise"`.
    """
    x, y, w = source.double(), target.double(), None if weights is None else weights.double()
    if w is None:
        w = torch.ones_like(x[..., 0])
    used = (w > 0)[..., None]
    # Select, never multiply: 0 * NaN is NaN, in the value and in the gradient.
    x, y, w = torch.where(used, x, 0.0), torch.where(used, y, 0.0), torch.where(used[..., 0], w, 0.0)
    total = w.sum(dim=-1)
    w = w / torch.where(total > 0, total, 1.0)[..., None]

    mean_x, mean_y = (w[..., None] * x).sum(dim=-2), (w[..., None] * y).sum(dim=-2)
    centred_x = torch.where(used, x - mean_x[..., None, :], 0.0)
    centred_y = torch.where(used, y - mean_y[..., None, :], 0.0)
    covariance = (w[..., None] * centred_y).transpose(-1, -2) @ centred_x
    variance_x = (w * centred_x.square().sum(dim=-1)).sum(dim=-1)
    variance_y = (w * centred_y.square().sum(dim=-1)).sum(dim=-1)

    noise = 8 * torch.finfo(source.dtype).eps
    floor = noise**2 * _largest(x) * _largest(y)
    determined = _rotation_is_determined(covariance.detach(), floor)
    if degenerate == "raise" and not bool(determined.all()):
        count = (w > 0).sum(dim=-1)[~determined]
        raise GeometryError(
            f"cannot align {int((~determined).sum())} of {determined.numel()} point sets (the first has "
            f"{int(count.flatten()[0])} points with weight): the rotation needs three points that are not on a line. "
            "Use more or other points, or degenerate='identity'."
        )
    identity = torch.eye(3, dtype=x.dtype, device=x.device).expand_as(covariance)
    rotation = project_to_rotation(torch.where(determined[..., None, None], covariance, identity))
    if with_scale:
        scale = _fitted_scale(rotation, covariance, variance_x, variance_y, determined, floor)
    else:
        scale = torch.ones_like(variance_x)
    translation = mean_y - scale[..., None] * (rotation @ mean_x[..., None])[..., 0]
    dtype = source.dtype
    return Similarity(
        scale=scale.to(dtype), rotation=rotation.to(dtype), translation=translation.to(dtype), determined=determined
    )


def _largest(points: Tensor) -> Tensor:
    return points.detach().abs().flatten(-2).amax(dim=-1) if points.shape[-2] else points.new_zeros(points.shape[:-2])


def _rotation_is_determined(covariance: Tensor, floor: Tensor) -> Tensor:
    """Two directions must be fixed beyond rounding (`floor`), and no mirror image may fit as well."""
    finite = torch.isfinite(covariance).flatten(-2).all(dim=-1)
    safe = torch.where(finite[..., None, None], covariance, 0.0)
    values = torch.linalg.svdvals(safe)
    sign = torch.where(torch.linalg.det(safe) < 0, -1.0, 1.0)
    fixed: Tensor = values[..., 1] + sign * values[..., 2] > torch.maximum(1e-12 * values[..., 0], floor)
    return finite & fixed


def _fitted_scale(
    rotation: Tensor, covariance: Tensor, variance_x: Tensor, variance_y: Tensor, determined: Tensor, floor: Tensor
) -> Tensor:
    some = variance_x > floor
    divisor = torch.where(some, variance_x, 1.0)
    fitted: Tensor = (rotation * covariance).sum(dim=(-1, -2)) / divisor
    # Without a rotation the ratio of the two spreads is all that can be said about the scale.
    both = some & (variance_y > floor)
    spread = torch.where(both, torch.where(both, variance_y, 1.0) / divisor, 1.0).sqrt()
    return torch.where(determined, fitted, spread)


def robust_similarity(
    source: Float[Tensor, "*batch points 3"],
    target: Float[Tensor, "*batch points 3"],
    weights: Float[Tensor, "*batch points"] | None = None,
    *,
    iterations: int = 10,
    max_points: int = 4096,
    with_scale: bool = True,
    degenerate: Degenerate = "raise",
) -> Similarity:
    """Fit a similarity that a minority of wrong points does not spoil.

    Weighted least distances (not squared) by `iterations` reweighted fits, then one least-squares fit over the points
    within three robust standard deviations. Same errors as `umeyama`; no gradient passes.

    Args:
        source, target, weights, with_scale, degenerate: as for `umeyama`.
        iterations: reweighted fits.
        max_points: where there are more, the reweighted fits look at this many, evenly chosen; the last fit sees all.
    """
    with torch.no_grad():
        base = torch.ones_like(source[..., 0]) if weights is None else weights
        fit = umeyama(source, target, base, with_scale=with_scale, degenerate=degenerate)
        if source.shape[-2] == 0:
            return fit
        some_source, some_target, some_base = source, target, base
        if source.shape[-2] > max_points:
            chosen = _even_choice(base > 0, max_points)
            some_base = base.gather(-1, chosen)
            triple = chosen[..., None].expand(*chosen.shape, 3)
            some_source, some_target = source.gather(-2, triple), target.gather(-2, triple)
        used = some_base > 0
        tiny = torch.finfo(source.dtype).eps * _largest(torch.where(used[..., None], some_target, 0.0)).clamp(min=1e-30)
        for _ in range(iterations):
            distance, median = _distances(fit, some_source, some_target, used)
            near = torch.maximum(0.1 * median, tiny)[..., None]
            weight = some_base / distance.clamp(min=near)
            fit = _choose(umeyama(some_source, some_target, weight, with_scale=with_scale, degenerate="identity"), fit)
        _, median = _distances(fit, some_source, some_target, used)
        distance = torch.linalg.vector_norm(fit.apply(source) - target, dim=-1)
        keep = distance <= torch.maximum(3 * 1.4826 * median, 4 * tiny)[..., None]  # False where it is NaN
        trimmed = umeyama(source, target, torch.where(keep, base, 0.0), with_scale=with_scale, degenerate="identity")
        return _choose(trimmed, fit)


def _even_choice(used: Tensor, count: int) -> Tensor:
    """Indices of `count` used points of every set, evenly spaced; some come twice where there are fewer."""
    order = torch.argsort((~used).to(torch.uint8), dim=-1, stable=True)  # the used ones come first
    last = (used.sum(dim=-1, keepdim=True) - 1).clamp(min=0)
    places = torch.linspace(0, 1, count, dtype=torch.float64, device=used.device) * last
    return order.gather(-1, places.round().long())


def _distances(fit: Similarity, source: Tensor, target: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """Residual of every point (1 where unused, so that nothing is NaN) and its median over the used ones."""
    residual = torch.linalg.vector_norm(fit.apply(source) - target, dim=-1)
    median = torch.where(used, residual, torch.nan).nanmedian(dim=-1).values
    return torch.where(used, residual, 1.0), torch.nan_to_num(median)


def _choose(first: Similarity, second: Similarity) -> Similarity:
    """The first where its rotation is determined, else the second."""
    assert first.determined is not None
    assert second.determined is not None
    good = first.determined
    return Similarity(
        scale=torch.where(good, first.scale, second.scale),
        rotation=torch.where(good[..., None, None], first.rotation, second.rotation),
        translation=torch.where(good[..., None], first.translation, second.translation),
        determined=good | second.determined,
    )


def align_maps(
    local: Float[Tensor, "batch views height width 3"],
    world: Float[Tensor, "batch views height width 3"],
    weight: Float[Tensor, "batch views height width"] | None = None,
    valid: Bool[Tensor, "batch views height width"] | None = None,
    *,
    with_scale: bool = True,
    robust: bool = False,
    degenerate: Degenerate = "raise",
) -> Similarity:
    """Fit, for every view, the similarity from its local pointmap to its world pointmap; batch shape (batch, views).

    Where the local map is a camera's own frame at the world's scale, rotation and translation are `world_from_camera`.
    Pixels that are not `valid`, have no weight or are not finite in both maps are left out. `robust` as in
    `robust_similarity` (then no gradient passes).

    Raises:
        GeometryError: as for `umeyama`.
    """
    finite = (torch.isfinite(local) & torch.isfinite(world)).all(dim=-1)
    use = finite if valid is None else finite & valid
    chosen = torch.ones_like(local[..., 0]) if weight is None else weight
    chosen = torch.where(use & torch.isfinite(chosen), chosen, 0.0)
    solve = robust_similarity if robust else umeyama
    fits = [
        solve(
            local[:, view].flatten(1, 2),
            world[:, view].flatten(1, 2),
            chosen[:, view].flatten(1, 2),
            with_scale=with_scale,
            degenerate=degenerate,
        )
        for view in range(local.shape[1])  # one view at a time: float64 copies of a hundred maps would not fit
    ]
    names = [field.name for field in dataclasses.fields(Similarity)]
    return Similarity(**{name: torch.stack([getattr(fit, name) for fit in fits], dim=1) for name in names})
