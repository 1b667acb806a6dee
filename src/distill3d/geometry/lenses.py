"""How lenses bend rays: the camera models of COLMAP (https://colmap.github.io/cameras.html), forwards and backwards.

A model moves normalised coordinates (x / z, y / z); focal lengths and principal point are in the intrinsics. Parameters
come in COLMAP's order, without those.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.errors import GeometryError

Points = Float[Tensor, "*batch 2"]
Params = Sequence[float]


def distort(model: str, params: Params, points: Points) -> Points:
    """Where a lens sends the rays of a pinhole.

    Args:
        model: COLMAP's name, as in "OPENCV_FISHEYE".
        params: its distortion parameters.
        points: normalised coordinates (x / z, y / z).

    Raises:
        GeometryError: there is no such model, or it has another number of parameters.
    """
    check_lens(model, params)
    return LENSES[model][1](points, params)


def undistort(model: str, params: Params, points: Points, *, steps: int = 20) -> Points:
    """The inverse of `distort`, by Newton's method from the distorted point. Computed in float64.

    Points that no ray is sent to (outside the image, or where a polynomial folds over) do not converge: distort
    the answer again to find them.

    Raises:
        GeometryError: as for `distort`.
    """
    target = points.double()
    found, small = target.clone(), 1e-6
    shift = torch.eye(2, dtype=torch.float64, device=points.device) * small
    for _ in range(steps):
        missed = distort(model, params, found) - target
        if not missed.numel() or missed.abs().max() < 1e-13:
            break
        columns = [
            (distort(model, params, found + shift[axis]) - distort(model, params, found - shift[axis])) / (2 * small)
            for axis in (0, 1)
        ]
        a, c, b, d = *columns[0].unbind(-1), *columns[1].unbind(-1)  # [[a, b], [c, d]]
        determinant = a * d - b * c
        safe = torch.where(determinant.abs() < 1e-9, torch.ones_like(determinant), determinant)
        step = torch.stack([d * missed[..., 0] - b * missed[..., 1], a * missed[..., 1] - c * missed[..., 0]], -1)
        found = found - (step / safe[..., None]).clamp(-0.5, 0.5)
    return found.to(points.dtype)


def check_lens(model: str, params: Params) -> None:
    """Refuse what is no lens.

    Raises:
        GeometryError: there is no such model, or it has another number of parameters.
    """
    if model not in LENSES:
        raise GeometryError(f"There is no camera model {model!r}; expected one of {', '.join(LENSES)}.")
    if len(params) != LENSES[model][0]:
        raise GeometryError(
            f"A lens of the model {model} came with {len(params)} distortion parameters, expected {LENSES[model][0]}."
        )


def _pinhole(points: Points, params: Params) -> Points:
    return points


def _polynomial(points: Points, params: Params) -> Points:
    """Radial: 1 + k1 r^2 + k2 r^4 + ..."""
    return points * (1 + _series(_squared(points), params))


def _opencv(points: Points, params: Params) -> Points:
    k1, k2, p1, p2 = params
    return points * (1 + _series(_squared(points), (k1, k2))) + _tangential(points, p1, p2)


def _full_opencv(points: Points, params: Params) -> Points:
    k1, k2, p1, p2, k3, k4, k5, k6 = params
    squared = _squared(points)
    factor = (1 + _series(squared, (k1, k2, k3))) / (1 + _series(squared, (k4, k5, k6)))
    return points * factor + _tangential(points, p1, p2)


def _fisheye(points: Points, params: Params) -> Points:
    """The angle to the axis in place of its tangent, then a polynomial of it."""
    return _polynomial(_angles(points), params)


def _fov(points: Points, params: Params) -> Points:
    (omega,) = params
    radius = _squared(points).sqrt()
    if abs(omega) < 1e-6:
        return points
    bent = torch.atan(2 * radius * torch.tan(torch.tensor(omega / 2, dtype=points.dtype))) / omega
    return points * _ratio(bent, radius, 2 * float(torch.tan(torch.tensor(omega / 2))) / omega)


def _thin_prism_fisheye(points: Points, params: Params) -> Points:
    k1, k2, p1, p2, k3, k4, sx1, sy1 = params
    angles = _angles(points)
    squared = _squared(angles)
    prism = squared * torch.tensor([sx1, sy1], dtype=points.dtype, device=points.device)
    return angles * (1 + _series(squared, (k1, k2, k3, k4))) + _tangential(angles, p1, p2) + prism


def _rad_tan_thin_prism_fisheye(points: Points, params: Params) -> Points:
    """The fisheye of Project Aria: the tangential and prism terms act on what the radial ones have made."""
    *radial, p0, p1, s0, s1, s2, s3 = params
    angles = _angles(points)
    bent = angles * (1 + _series(_squared(angles), radial))
    squared = _squared(bent)
    prism = torch.cat([_series(squared, (s0, s1)), _series(squared, (s2, s3))], dim=-1)
    return bent + _tangential(bent, p1, p0) + prism


def _division(points: Points, params: Params) -> Points:
    """The pinhole's radius is r / (1 + k r^2) of the lens's radius r."""
    (k,) = params
    # The root that goes to the radius itself where k goes to 0, without dividing by k; beyond the fold there is none.
    return points * 2 / (1 + (1 - 4 * k * _squared(points)).clamp(min=0).sqrt())


def _eucm(points: Points, params: Params) -> Points:
    """The enhanced unified camera model (Khomutenko 2016)."""
    alpha, beta = params
    return points / (alpha * (beta * _squared(points) + 1).clamp(min=0).sqrt() + 1 - alpha)


def _squared(points: Points) -> Float[Tensor, "*batch 1"]:
    return points.square().sum(dim=-1, keepdim=True)


def _series(squared: Float[Tensor, "*batch 1"], factors: Params) -> Float[Tensor, "*batch 1"]:
    total = torch.zeros_like(squared)
    for factor in reversed(factors):
        total = (total + factor) * squared
    return total


def _tangential(points: Points, p1: float, p2: float) -> Points:
    x, y = points[..., :1], points[..., 1:]
    squared = _squared(points)
    return torch.cat([2 * p1 * x * y + p2 * (squared + 2 * x * x), 2 * p2 * x * y + p1 * (squared + 2 * y * y)], dim=-1)


def _angles(points: Points) -> Points:
    radius = _squared(points).sqrt()
    return points * _ratio(torch.atan(radius), radius, 1.0)


def _ratio(above: Tensor, below: Tensor, limit: float) -> Tensor:
    """above / below, and `limit` where both go to zero."""
    near = below < 1e-8
    return torch.where(near, torch.full_like(above, limit), above / torch.where(near, torch.ones_like(below), below))


LENSES: dict[str, tuple[int, Callable[[Points, Params], Points]]] = {
    "SIMPLE_PINHOLE": (0, _pinhole),
    "PINHOLE": (0, _pinhole),
    "SIMPLE_RADIAL": (1, _polynomial),
    "RADIAL": (2, _polynomial),
    "OPENCV": (4, _opencv),
    "OPENCV_FISHEYE": (4, _fisheye),
    "FULL_OPENCV": (8, _full_opencv),
    "FOV": (1, _fov),
    "SIMPLE_RADIAL_FISHEYE": (1, _fisheye),
    "RADIAL_FISHEYE": (2, _fisheye),
    "THIN_PRISM_FISHEYE": (8, _thin_prism_fisheye),
    "RAD_TAN_THIN_PRISM_FISHEYE": (12, _rad_tan_thin_prism_fisheye),
    "SIMPLE_DIVISION": (1, _division),
    "DIVISION": (1, _division),
    "SIMPLE_FISHEYE": (0, _fisheye),
    "FISHEYE": (0, _fisheye),
    "EUCM": (2, _eucm),
}
"""COLMAP's camera models in the order of their numbers: how many distortion parameters, and what they do."""
