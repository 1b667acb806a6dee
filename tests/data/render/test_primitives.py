"""Each shape's interval is compared with the plainest definition of the shape: which points are inside?"""

import pytest
import torch

from distill3d.data.render.primitives import BOX, CYLINDER, ELLIPSOID, INTERVALS

INSIDE = {
    BOX: lambda p: (p.abs() <= 1).all(dim=-1),
    ELLIPSOID: lambda p: p.square().sum(dim=-1) <= 1,
    CYLINDER: lambda p: (p[..., :2].square().sum(dim=-1) <= 1) & (p[..., 2].abs() <= 1),
}


@pytest.mark.parametrize("shape", [BOX, ELLIPSOID, CYLINDER])
def test_the_interval_holds_exactly_the_points_inside(shape):
    generator = torch.Generator().manual_seed(shape)
    origin = 3 * torch.randn(40, 3, generator=generator)
    aimed = torch.rand(40, 3, 50, generator=generator) * 3 - 1.5 - origin[:, :, None]
    near, far = INTERVALS[shape](origin, aimed)
    t = torch.linspace(-1, 3, 401)
    points = origin[:, None, None] + t[:, None] * aimed.transpose(1, 2)[:, :, None]  # (tiles, rays, steps, 3)
    expected = INSIDE[shape](points)
    found = (near[:, :, None] <= t) & (t <= far[:, :, None])
    # Steps that land within rounding of the surface may go either way.
    clear = ((t - near[:, :, None]).abs() > 1e-4) & ((t - far[:, :, None]).abs() > 1e-4)
    assert expected.any()
    assert torch.equal(found[clear], expected[clear])


@pytest.mark.parametrize(
    ("shape", "direction", "near", "far"),
    [
        (BOX, (0.0, 0.0, -1.0), 2.0, 4.0),
        (ELLIPSOID, (0.0, 0.0, -1.0), 2.0, 4.0),
        (CYLINDER, (0.0, 0.0, -1.0), 2.0, 4.0),
        (ELLIPSOID, (0.0, 0.0, -2.0), 1.0, 2.0),
    ],
)
def test_a_ray_parallel_to_the_faces_gives_numbers_and_the_right_ones(shape, direction, near, far):
    origin = torch.tensor([[0.0, 0.0, 3.0]])
    found = INTERVALS[shape](origin, torch.tensor(direction)[None, :, None])
    assert torch.allclose(torch.stack(found).flatten(), torch.tensor([near, far]), atol=1e-5)


@pytest.mark.parametrize("shape", [BOX, ELLIPSOID, CYLINDER])
def test_a_ray_that_passes_by_has_an_empty_interval(shape):
    near, far = INTERVALS[shape](torch.tensor([[0.0, 1.5, 3.0]]), torch.tensor([[[0.0], [0.0], [-1.0]]]))
    assert (near > far).all()
