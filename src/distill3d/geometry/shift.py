"""Cameras out of affine-invariant pointmaps: the focal length and the shift along z that MoGe leaves open.

Such a map is right up to one unknown scale and one unknown shift of z. A pinhole with its principal point at the
image's centre sees the point (x, y, z) at focal * (x, y) / (z + shift), which fixes focal and shift (MoGe, sec. 3.3).
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SOLVER_SIDE = 64
"""The fit looks at this many rows and columns of the map, as the reference code does."""
MAX_STEPS = 100


def view_plane_grid(
    height: int, width: int, aspect: float | None = None, device: torch.device | str | None = None
) -> Float[Tensor, "{height} {width} 2"]:
    """Give (x, y) of every cell's centre, from the image's centre, in halves of the image's diagonal.

    Args:
        height: rows of the grid.
        width: columns of the grid.
        aspect: width over height of the image that the grid covers; None for that of the grid.
        device: of the result.
    """
    aspect = width / height if aspect is None else aspect
    span_x, span_y = aspect / math.sqrt(1 + aspect**2), 1 / math.sqrt(1 + aspect**2)
    x = torch.linspace(-span_x * (width - 1) / width, span_x * (width - 1) / width, width, device=device)
    y = torch.linspace(-span_y * (height - 1) / height, span_y * (height - 1) / height, height, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


@torch.no_grad()
def focal_and_shift_from_pointmap(
    pointmap_affine: Float[Tensor, "*batch height width 3"],
    valid: Bool[Tensor, "*batch height width"] | None = None,
    focal: Float[Tensor, "*batch"] | None = None,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Find the focal length in pixels and the shift to be added to z, by least squares from a shift of 0.

    Square pixels and a principal point at the image's centre are taken for granted. Fewer than two usable points give
    a focal length of half the diagonal and a shift of 0. Not differentiable.

    Args:
        pointmap_affine: camera points, right up to scale and a shift of z; z is positive.
        valid: None takes every pixel; points that are not finite never count.
        focal: in pixels where it is known; then the shift alone is sought.
    """
    height, width = pointmap_affine.shape[-3:-1]
    batch = pointmap_affine.shape[:-3]
    rows = _nearest(height, pointmap_affine.device)
    columns = _nearest(width, pointmap_affine.device)
    points = pointmap_affine[..., rows, :, :][..., columns, :].reshape(-1, SOLVER_SIDE**2, 3).double()
    use = torch.isfinite(points).all(dim=-1)
    if valid is not None:
        use = use & valid[..., rows, :][..., columns].reshape(-1, SOLVER_SIDE**2)
    points = torch.where(use[..., None], points, 1.0)
    target = view_plane_grid(height, width, device=points.device)[rows][:, columns].reshape(-1, 2).double()
    half_diagonal = math.hypot(height, width) / 2
    known = None if focal is None else focal.reshape(-1).double() / half_diagonal
    solved, shift = _solve(points, target.expand(len(points), -1, -1), use, known)
    enough = use.sum(dim=-1) >= 2
    solved = torch.where(enough, solved, torch.ones_like(solved) if known is None else known)
    shift = torch.where(enough, shift, 0.0)
    dtype = pointmap_affine.dtype
    return (solved * half_diagonal).to(dtype).view(batch), shift.to(dtype).view(batch)


def _nearest(length: int, device: torch.device) -> Tensor:
    """Index floor(i * length / side) of every row or column that the fit looks at."""
    return torch.arange(SOLVER_SIDE, device=device) * length // SOLVER_SIDE


def _solve(
    points: Float[Tensor, "maps samples 3"],
    target: Float[Tensor, "maps samples 2"],
    use: Bool[Tensor, "maps samples"],
    known: Float[Tensor, " maps"] | None,
) -> tuple[Float[Tensor, " maps"], Float[Tensor, " maps"]]:
    """Levenberg-Marquardt over the shift, with the best focal length for every shift in closed form."""
    weight = use[..., None].to(points.dtype)

    def evaluate(shift: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Focal length, cost, and slope and curvature of half the cost at this shift."""
        depth = points[..., 2:] + shift[:, None, None]
        seen = weight * points[..., :2] / depth
        moved = -seen / depth
        a, b = (seen * target).sum(dim=(1, 2)), seen.square().sum(dim=(1, 2))
        if known is None:
            focal = a / b
            a_moved, b_moved = (moved * target).sum(dim=(1, 2)), 2 * (seen * moved).sum(dim=(1, 2))
            focal_moved = (a_moved * b - a * b_moved) / b.square()
        else:
            focal, focal_moved = known, torch.zeros_like(known)
        residual = focal[:, None, None] * seen - weight * target
        jacobian = focal_moved[:, None, None] * seen + focal[:, None, None] * moved
        cost = residual.square().sum(dim=(1, 2))
        return focal, cost, (jacobian * residual).sum(dim=(1, 2)), jacobian.square().sum(dim=(1, 2))

    shift = points.new_zeros(len(points))
    damping = torch.full_like(shift, 1e-3)
    focal, cost, slope, curvature = evaluate(shift)
    for _ in range(MAX_STEPS):
        step = -slope / (curvature * (1 + damping)).clamp(min=1e-300)
        tried = evaluate(shift + step)
        # A NaN (a point in the plane of the camera) compares as no better, and the step is shortened.
        better = tried[1] < cost
        shift = torch.where(better, shift + step, shift)
        current = zip(tried, (focal, cost, slope, curvature), strict=True)
        focal, cost, slope, curvature = (torch.where(better, new, old) for new, old in current)
        damping = torch.where(better, damping / 10, damping * 10).clamp(1e-9, 1e12)
        if bool((step.abs() <= 1e-10 * (1 + shift.abs())).all()):
            break
    return focal, shift
