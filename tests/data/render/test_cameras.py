import pytest
import torch

from distill3d.data.render.cameras import around, clearance, look_poses, pinholes, scattered, walk
from distill3d.data.render.place import LIVING, place_scene
from distill3d.data.render.scene import Material, SceneBuilder
from distill3d.errors import GeometryError

GREY = Material(colours=((0.5, 0.5, 0.5),))


def one_box(size):
    build = SceneBuilder()
    build.box((0, 0, 1), size, GREY, yaw_deg=30)
    build.light((0, 0, 3), (1, 1, 1))
    build.room((-4, -4, 0), (4, 4, 3))
    return build.build(ambient=(0.3, 0.3, 0.3), ambient_direction=(0, 0, 0), sky=((1, 1, 1), (0, 0, 1)))


def test_cameras_look_at_their_target_with_the_head_up():
    eye, target = torch.tensor([[1.0, 2.0, 1.5]]), torch.tensor([[3.0, -1.0, 0.5]])
    pose = look_poses(eye, target)[0]
    in_camera = pose[:3, :3].T @ (target[0] - pose[:3, 3])
    assert torch.allclose(in_camera, torch.tensor([0.0, 0.0, float((target - eye).norm())]), atol=1e-5)
    assert pose[2, 0] == pytest.approx(0, abs=1e-6)  # the image's rows are level
    assert pose[2, 1] < 0  # its y axis points down
    assert torch.allclose(pose[:3, :3] @ pose[:3, :3].T, torch.eye(3), atol=1e-6)


def test_the_wider_side_has_the_field_of_view():
    for size in ((60, 90), (90, 60)):
        intrinsics = pinholes(torch.tensor([90.0]), size)[0]
        assert intrinsics[0, 0] == pytest.approx(45.0)
        assert intrinsics[:2, 2].tolist() == [(size[1] - 1) / 2, (size[0] - 1) / 2]


def test_clearance_is_the_distance_from_the_box():
    points = torch.tensor([[0.0, 0.0, 3.0], [0.1, 0.1, 1.0], [0.0, 0.0, 0.0]])
    found = clearance(one_box((1.0, 1.0, 1.0)), points)
    assert torch.allclose(found, torch.tensor([1.5, 0.0, 0.5]), atol=1e-5)


def test_a_room_without_free_air_is_an_error_that_says_so():
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(GeometryError, match="too full"):
        scattered(one_box((8.0, 8.0, 4.0)), (-2, -2, 0), (2, 2, 3), 3, generator)


def test_a_walk_keeps_its_pace_and_stays_smooth():
    eye, target = walk(place_scene(), *LIVING, 30, torch.Generator().manual_seed(3))
    steps = eye.diff(dim=0).norm(dim=1)
    assert len(eye) == 30
    assert steps.mean() == pytest.approx(0.09, abs=0.005)
    assert steps.max() < 0.11
    assert steps.min() > 0.06
    assert target.diff(dim=0).norm(dim=1).max() < 1.0


def test_a_walk_that_is_too_long_is_an_error(monkeypatch):
    monkeypatch.setattr("distill3d.data.render.cameras._MAX_ROUNDS", 8)
    with pytest.raises(GeometryError, match="try fewer frames"):
        walk(place_scene(), *LIVING, 400, torch.Generator().manual_seed(0))


def test_a_round_of_photos_goes_around_one_spot_and_neighbours_overlap():
    eye, target = around(place_scene(), *LIVING, 12, torch.Generator().manual_seed(1))
    assert eye.shape == target.shape == (12, 3)
    forward = look_poses(eye, target)[:, :3, 2]
    neighbours, any_two = (forward[1:] * forward[:-1]).sum(dim=1), forward @ forward.T
    assert neighbours.mean() > any_two.mean()
    assert neighbours.median() > 0.5
    assert target[:, :2].std(dim=0).max() < 1.5
