import pytest
import torch

from distill3d.data.render.cull import RayTiles, frustum_planes, touched
from distill3d.data.render.primitives import BOX, CYLINDER, ELLIPSOID, INTERVALS
from distill3d.data.render.scene import Material, Scene, SceneBuilder, stack_scenes
from distill3d.data.render.trace import blocked, nearest_hits

GREY = Material(colours=((0.5, 0.5, 0.5),))


def random_scene(seed: int, count: int = 40) -> Scene:
    """Boxes, balls and cylinders scattered about the origin."""
    generator = torch.Generator().manual_seed(seed)
    build = SceneBuilder()
    for number in range(count):
        x, y, z, a, b, c, yaw = torch.rand(7, generator=generator).tolist()
        with build.at(6 * x - 3, 6 * y - 3, 4 * z - 2, 360 * yaw):
            size = (0.1 + a, 0.1 + b, 0.1 + c)
            if number % 3 == 0:
                build.box((0, 0, 0), size, GREY, tilt_deg=90 * a)
            elif number % 3 == 1:
                build.ball((0, 0, 0), size, GREY, tilt_deg=90 * b)
            else:
                build.cylinder((0, 0, 0), 0.1 + a, 0.1 + b, GREY, axis="xyz"[number % 9 // 3])
    build.light((0, 0, 3), (1, 1, 1))
    build.room((-4, -4, -3), (4, 4, 3))
    return build.build(ambient=(0.3, 0.3, 0.3), ambient_direction=(0, 0, 0), sky=((1, 1, 1), (0, 0, 1)))


def random_tiles(seed: int, tiles: int = 60, rays: int = 12, *, spread: float = 0.1, scenes: int = 1) -> RayTiles:
    generator = torch.Generator().manual_seed(seed)
    toward = torch.randn(tiles, 3, 1, generator=generator)
    direction = toward + spread * torch.randn(tiles, 3, rays, generator=generator)
    origin = -4 * torch.nn.functional.normalize(toward[:, :, 0], dim=1) + torch.randn(tiles, 3, generator=generator)
    return RayTiles(torch.arange(tiles) * scenes // tiles, origin, direction)


def every_interval(scene: Scene, tiles: RayTiles) -> tuple[torch.Tensor, torch.Tensor]:
    """All rays against all primitives, the plain way: (tiles, rays, primitives)."""
    nears, fars = [], []
    for scene_number, origin, direction in zip(tiles.scene, tiles.origin, tiles.direction, strict=True):
        affine = scene.local_from_world[scene_number]
        local_origin = affine[:, :, :3] @ origin + affine[:, :, 3]
        local_direction = affine[:, :, :3] @ direction
        near = torch.full((len(affine), direction.shape[1]), torch.inf)
        far = -near
        for shape in (BOX, ELLIPSOID, CYLINDER):
            mine = scene.kind[scene_number] == shape
            near[mine], far[mine] = INTERVALS[shape](local_origin[mine], local_direction[mine])
        nears.append(near.T)
        fars.append(far.T)
    return torch.stack(nears), torch.stack(fars)


@pytest.mark.parametrize("spread", [0.05, 0.5, 5.0])
def test_culling_never_loses_a_hit(spread):
    scene, tiles = random_scene(1), random_tiles(2, spread=spread)
    near, far = every_interval(scene, tiles)
    expected = torch.where((near <= far) & (near > 0), near, torch.inf).amin(dim=2)
    hits = nearest_hits(scene, tiles, rays_in_flight=200)
    assert torch.isfinite(expected).any()
    assert torch.isinf(expected).any()
    assert torch.allclose(hits.t, expected, rtol=1e-4, atol=1e-4)


def test_a_narrow_frustum_touches_few_primitives_and_all_that_it_hits():
    scene, tiles = random_scene(3), random_tiles(4, spread=0.02)
    near, far = every_interval(scene, tiles)
    kept = touched(frustum_planes(tiles, torch.inf), tiles.scene, scene.world_from_local)
    hit = ((near <= far) & (near > 0)).any(dim=1)
    assert not (hit & ~kept).any()
    assert kept.float().mean() < 0.4


def test_shadows_equal_the_plain_search():
    scene, tiles = random_scene(5), random_tiles(6, spread=0.3)
    alive = torch.rand(tiles.direction[:, 0].shape, generator=torch.Generator().manual_seed(0)) < 0.8
    margin = torch.full(alive.shape, 0.01)
    near, far = every_interval(scene, tiles)
    expected = ((near <= far) & (near > 0) & (near < 0.99)).any(dim=2)
    beams = RayTiles(tiles.scene, tiles.origin, tiles.direction, alive)
    found = blocked(scene, beams, margin, rays_in_flight=300)
    assert 0.1 < expected.float().mean() < 0.9
    assert torch.equal(found[alive], expected[alive])


def test_rays_in_a_batch_of_scenes_meet_their_own_scene_only():
    scenes = [random_scene(7, 12), random_scene(8, 30)]
    tiles = random_tiles(9, scenes=2)
    both = nearest_hits(stack_scenes(scenes), tiles, rays_in_flight=10_000)
    for number, scene in enumerate(scenes):
        mine = tiles.scene == number
        own = RayTiles(torch.zeros(int(mine.sum()), dtype=torch.int64), tiles.origin[mine], tiles.direction[mine])
        alone = nearest_hits(scene, own, rays_in_flight=10_000)
        assert torch.equal(both.t[mine], alone.t)


def test_chunks_of_rays_change_nothing():
    scene, tiles = random_scene(10), random_tiles(11)
    whole, pieces = (nearest_hits(scene, tiles, rays_in_flight=count) for count in (100_000, 50))
    assert torch.equal(whole.t, pieces.t)
    assert torch.equal(whole.primitive, pieces.primitive)
