import math

import pytest
import torch

from distill3d.data.render.cameras import look_poses, pinholes
from distill3d.data.render.caster import cast_depth, render
from distill3d.data.render.place import LIVING, place_scene
from distill3d.data.render.scene import Material, Scene, SceneBuilder, stack_scenes
from distill3d.geometry.cameras import project_points, unproject_depth
from distill3d.geometry.poses import invert_pose, transform_points

WHITE = Material(colours=((0.9, 0.9, 0.9),))
RED = Material(colours=((0.9, 0.1, 0.1),))


def simple_scene(*, ball_height: float = 1.0, lamp: float = 1.0) -> Scene:
    """A floor and a red ball above it, lit straight from above."""
    build = SceneBuilder()
    build.box((0, 0, -0.05), (8, 8, 0.1), WHITE)
    build.ball((0, 0, ball_height), (1.0, 1.0, 1.0), RED)
    build.light((0, 0, 50), (lamp, lamp, lamp))
    build.room((-4, -4, 0), (4, 4, 9))
    return build.build(ambient=(0.1, 0.1, 0.1), ambient_direction=(0, 0, 0), sky=((0.8, 0.9, 1), (0.2, 0.4, 0.9)))


def cameras(eyes, targets, size, fov_deg=62.0):
    poses = look_poses(torch.tensor(eyes), torch.tensor(targets))
    return poses[None], pinholes(torch.full((1, len(eyes)), fov_deg), size)


def living_room_views(size):
    eyes = [[1.5, 1.2, 1.5], [4.2, 1.6, 1.4], [2.6, 2.0, 1.6]]
    return cameras(eyes, [[3.0, 4.0, 0.7], [2.0, 4.0, 0.7], [2.5, 4.5, 0.9]], size)


def test_a_ball_has_the_silhouette_and_depth_of_a_ball():
    size = (65, 65)
    poses, intrinsics = cameras([[-4.0, 0.0, 1.0]], [[0.0, 0.0, 1.0]], size)
    build = SceneBuilder()
    build.ball((0, 0, 1), (1.0, 1.0, 1.0), RED)
    build.light((0, 0, 50), (1, 1, 1))
    build.room((-9, -9, -9), (9, 9, 9))
    scene = build.build(ambient=(0.1, 0.1, 0.1), ambient_direction=(0, 0, 0), sky=((1, 1, 1), (0, 0, 1)))
    depth = cast_depth(scene, poses, intrinsics, size)[0, 0]
    ray = unproject_depth(torch.ones(size), intrinsics[0, 0])
    # Angle off the axis: the ball of radius 0.5 at distance 4 fills asin(1/8).
    angle = torch.atan2(ray[..., :2].norm(dim=-1), ray[..., 2])
    edge = math.asin(0.5 / 4)
    clear = (angle - edge).abs() > 1e-3
    assert torch.equal((depth > 0)[clear], (angle < edge)[clear])
    assert depth[32, 32] == pytest.approx(3.5, abs=1e-5)
    points = unproject_depth(depth, intrinsics[0, 0])[depth > 0]
    assert torch.allclose((points - torch.tensor([0.0, 0.0, 4.0])).norm(dim=1), torch.tensor(0.5), atol=1e-5)


def test_depth_of_one_view_lands_on_the_depth_of_another():
    size = (84, 112)
    poses, intrinsics = living_room_views(size)
    scene = place_scene()
    depth = cast_depth(scene, poses, intrinsics, size)[0]
    for a, b in ((0, 1), (1, 2), (2, 0)):
        points_a = unproject_depth(depth[a], intrinsics[0, a])
        b_from_a = invert_pose(poses[0, b]) @ poses[0, a]
        points_b = transform_points(b_from_a, points_a)
        pixels, z = project_points(points_b, intrinsics[0, b])
        inside = (pixels >= 0).all(-1) & (pixels[..., 0] < size[1] - 1) & (pixels[..., 1] < size[0] - 1)
        inside &= (depth[a] > 0) & (z > 0.1)
        # Look along the exact ray to each of these points, instead of interpolating depth across edges.
        exact = _depth_at(scene, poses[0, b], intrinsics[0, b], pixels[inside])
        z = z[inside]
        seen = exact > z - 2e-3
        assert seen.float().mean() > 0.5
        assert ((exact - z).abs()[seen] < 2e-3).float().mean() > 0.995
        # What is not seen is hidden by something nearer, never by something farther.
        assert (exact[~seen] < z[~seen]).all()


def _depth_at(scene, world_from_camera, intrinsics, pixels):
    """Depth through given (not whole) pixels: one camera each, whose single pixel is that point."""
    shifted = intrinsics.repeat(len(pixels), 1, 1)
    shifted[:, :2, 2] -= pixels
    depth = cast_depth(scene, world_from_camera.expand(1, len(pixels), 4, 4), shifted[None], (1, 1))
    return depth[0, :, 0, 0]


def test_a_batch_of_scenes_equals_the_scenes_one_by_one():
    size = (42, 56)
    scenes = [simple_scene(), place_scene()]
    poses = torch.cat([cameras([[-4.0, 0.0, 2.0]], [[0.0, 0.0, 0.5]], size)[0], living_room_views(size)[0][:, :1]])
    intrinsics = pinholes(torch.full((2, 1), 62.0), size)
    together = render(stack_scenes(scenes), poses, intrinsics, size)
    for number, scene in enumerate(scenes):
        alone = render(scene, poses[number : number + 1], intrinsics[number : number + 1], size)
        assert torch.equal(together.depth[number], alone.depth[0])
        assert torch.allclose(together.images[number], alone.images[0], atol=1e-5)


def test_chunks_of_views_change_nothing():
    size = (40, 50)  # not a multiple of the tile
    poses, intrinsics = living_room_views(size)
    whole, pieces = (render(place_scene(), poses, intrinsics, size, rays_in_flight=n) for n in (1 << 20, 700))
    assert torch.equal(whole.depth, pieces.depth)
    assert torch.allclose(whole.images, pieces.images, atol=1e-6)


def test_images_are_in_range_and_show_something():
    size = (56, 56)
    poses, intrinsics = living_room_views(size)
    views = render(place_scene(), poses, intrinsics, size)
    assert views.images.shape == (1, 3, 3, 56, 56)
    assert torch.isfinite(views.images).all()
    assert views.images.min() >= 0
    assert views.images.max() <= 1
    assert (views.images.flatten(3).std(dim=3) > 0.08).all()
    assert views.depth.max() < 12
    assert torch.equal(views.valid, views.depth > 0)


def test_the_sky_has_no_depth():
    size = (28, 28)
    poses, intrinsics = cameras([[0.0, -3.0, 1.0]], [[0.0, -6.0, 4.0]], size)
    views = render(simple_scene(), poses, intrinsics, size)
    assert (views.depth == 0).all()
    assert views.images.std() > 0.01


def test_the_ball_throws_a_shadow_below_itself():
    size = (56, 56)
    poses, intrinsics = cameras([[-3.0, 0.1, 1.6]], [[0.0, 0.0, 0.0]], size)
    lit = render(simple_scene(ball_height=1.6), poses, intrinsics, size)
    middle_of_shadow, in_light = lit.images[0, 0, 1, 28, 28], lit.images[0, 0, 1, 50, 5]
    assert lit.depth[0, 0, 28, 28] == pytest.approx(math.hypot(3.0, 0.1, 1.6), rel=0.02)
    assert middle_of_shadow < 0.6 * in_light


def test_supersampling_smooths_colours_and_leaves_depth_alone():
    size = (42, 42)
    poses, intrinsics = living_room_views(size)
    plain = render(place_scene(), poses, intrinsics, size)
    smooth = render(place_scene(), poses, intrinsics, size, supersample=True)
    assert torch.equal(plain.depth, smooth.depth)
    assert (plain.images - smooth.images).abs().mean() < 0.06
    roughness = [images.diff(dim=-1).abs().mean() for images in (plain.images, smooth.images)]
    assert roughness[1] < roughness[0]


def test_the_living_room_has_walls_all_around():
    size = (14, 14)
    low, high = LIVING
    middle = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, 1.9]
    around = [[middle[0] + math.cos(a), middle[1] + math.sin(a), 1.95] for a in torch.arange(0, 6.2, 0.5).tolist()]
    poses, intrinsics = cameras([middle] * len(around), around, size)
    depth = cast_depth(place_scene(), poses, intrinsics, size)
    assert (depth > 0).float().mean() > 0.9  # the windows let the sky in
    assert depth.max() < 10
