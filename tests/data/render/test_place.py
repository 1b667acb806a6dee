import pytest
import torch

from distill3d.data.render.cameras import clearance
from distill3d.data.render.place import LIVING, place_cameras, place_scene
from distill3d.geometry.poses import rotation_angle


@pytest.fixture(scope="module")
def cameras():
    return place_cameras((112, 112), num_train=240, num_test=120, seed=0)


def test_held_out_cameras_are_none_of_the_training_cameras(cameras):
    is_test = torch.tensor([split == "test" for split in cameras.splits])
    assert int(is_test.sum()) == 120
    train, test = cameras.world_from_camera[~is_test], cameras.world_from_camera[is_test]
    apart = torch.cdist(test[:, :3, 3], train[:, :3, 3])
    turned = rotation_angle(test[:, None, :3, :3], train[None, :, :3, :3])
    assert (apart + turned).min() > 1e-3


def test_all_cameras_stand_in_the_living_room_clear_of_furniture(cameras):
    eyes = cameras.world_from_camera[:, :3, 3]
    assert (clearance(place_scene(), eyes) > 0.25).all()
    assert (eyes[:, :2] > torch.tensor(LIVING[0][:2])).all()
    assert (eyes[:, :2] < torch.tensor(LIVING[1][:2])).all()


def test_walks_move_in_small_steps_and_rounds_of_photos_in_larger_ones(cameras):
    steps = cameras.world_from_camera[:, :3, 3].diff(dim=0).norm(dim=1)
    assert (steps[:39] < 0.12).all()
    assert (steps[:39] > 0.02).all()
    assert steps[80:239].median() > 0.2


def test_lenses_are_about_62_degrees_and_differ(cameras):
    fov_deg = torch.rad2deg(2 * torch.atan(56 / cameras.intrinsics[:, 0, 0]))
    assert fov_deg.min() > 57
    assert fov_deg.max() < 67
    assert fov_deg.std() > 0.5


def test_a_seed_gives_the_same_cameras_and_another_seed_others():
    first, again, other = (place_cameras((28, 28), num_train=6, num_test=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.world_from_camera, again.world_from_camera)
    assert torch.equal(first.intrinsics, again.intrinsics)
    assert not torch.allclose(first.world_from_camera, other.world_from_camera)
