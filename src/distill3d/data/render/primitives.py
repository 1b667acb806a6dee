"""Where a ray enters and leaves the three shapes that everything is made of.

Every primitive is an affine image of a unit shape: the cube [-1, 1]^3, the unit ball, or the cylinder of radius 1 along
z with |z| <= 1. A ray `origin + t * direction` is taken to the primitive's own frame, where the intersection has a
closed form; an affine map keeps `t`, so with camera rays of z = 1 the answer *is* the planar depth, exactly.
All functions return the interval (near, far) of `t`; the ray misses where near > far.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

EMPTY, BOX, ELLIPSOID, CYLINDER = 0, 1, 2, 3

# Keeps a ray that runs exactly parallel to a face from giving 0 * inf = nan.
_TINY = 1e-12

LocalOrigin = Float[Tensor, "tiles 3"]
LocalDirection = Float[Tensor, "tiles 3 rays"]
Interval = tuple[Float[Tensor, "tiles rays"], Float[Tensor, "tiles rays"]]


def box_interval(origin: LocalOrigin, direction: LocalDirection) -> Interval:
    """Interval of `t` inside the cube [-1, 1]^3 (slab method)."""
    inverse = (direction + _TINY).reciprocal_()
    middle = inverse * -origin[:, :, None]
    half = inverse.abs_()
    near, far = middle - half, middle.add_(half)
    return (
        torch.maximum(torch.maximum(near[:, 0], near[:, 1]), near[:, 2]),
        torch.minimum(torch.minimum(far[:, 0], far[:, 1]), far[:, 2]),
    )


def ellipsoid_interval(origin: LocalOrigin, direction: LocalDirection) -> Interval:
    """Interval of `t` inside the unit ball."""
    dx, dy, dz = direction.unbind(dim=1)
    ox, oy, oz = origin[:, :, None].unbind(dim=1)
    return _quadric_interval(
        dx * dx + dy * dy + dz * dz,
        ox * dx + oy * dy + oz * dz,
        ox * ox + oy * oy + oz * oz - 1,
    )


def cylinder_interval(origin: LocalOrigin, direction: LocalDirection) -> Interval:
    """Interval of `t` inside the capped cylinder x^2 + y^2 <= 1, |z| <= 1."""
    dx, dy, dz = direction.unbind(dim=1)
    ox, oy, oz = origin[:, :, None].unbind(dim=1)
    near, far = _quadric_interval(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 1)
    inverse = (dz + _TINY).reciprocal_()
    middle = inverse * -oz
    half = inverse.abs_()
    return torch.maximum(near, middle - half), torch.minimum(far, middle + half)


def _quadric_interval(a: Tensor, b: Tensor, c: Tensor) -> Interval:
    """Between the roots of a t^2 + 2 b t + c; an empty interval where there are none."""
    a = a + _TINY
    discriminant = b * b - a * c
    root = discriminant.clamp(min=0).sqrt_()
    near = (-b - root) / a
    far = torch.where(discriminant > 0, (root - b) / a, -torch.inf)
    return near, far


INTERVALS: dict[int, Callable[[Tensor, Tensor], Interval]] = {
    BOX: box_interval,
    ELLIPSOID: ellipsoid_interval,
    CYLINDER: cylinder_interval,
}
