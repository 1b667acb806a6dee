import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill3d.export.upright import estimate_up, gltf_from_world
from tests.export.synthetic import room_reconstruction


def poses_of(num_views: int, pitch_deg: float) -> np.ndarray:
    prediction = room_reconstruction(num_views, 4, 6, pitch_deg).prediction
    return prediction.world_from_camera[0].double().numpy()


def true_up(pitch_deg: float) -> np.ndarray:
    """Up in the frame of view 0, which looks down by `pitch_deg`."""
    pitch = np.radians(pitch_deg)
    return np.array([0, -np.cos(pitch), -np.sin(pitch)])


@given(pitch=st.floats(-35, 35))
def test_up_is_found_although_every_camera_is_tilted_the_same_way(pitch):
    up = estimate_up(poses_of(5, pitch))
    assert np.degrees(np.arccos(np.clip(up @ true_up(pitch), -1, 1))) < 0.1


def test_one_view_says_up_by_its_own_axis():
    np.testing.assert_allclose(estimate_up(poses_of(1, 20)), [0, -1, 0], atol=1e-6)


def test_views_that_look_one_way_fall_back_to_their_mean():
    poses = np.repeat(poses_of(1, 20), 4, axis=0)
    poses[:, 0, 3] = np.arange(4)
    np.testing.assert_allclose(estimate_up(poses), [0, -1, 0], atol=1e-6)


@pytest.mark.parametrize("level", [True, False])
def test_the_step_to_gltf_is_a_proper_rotation(level):
    matrix = gltf_from_world(poses_of(4, 25), level=level)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    np.testing.assert_array_equal(matrix[:, 3], [0, 0, 0, 1])


def test_levelled_up_is_plus_y_and_view_0_looks_into_the_screen():
    matrix = gltf_from_world(poses_of(4, 25))[:3, :3]
    np.testing.assert_allclose(matrix @ true_up(25), [0, 1, 0], atol=1e-3)
    forward = matrix @ [0, 0, 1]
    assert abs(forward[0]) < 1e-6
    assert forward[2] < -0.8


def test_unlevelled_is_half_a_turn_about_x():
    np.testing.assert_array_equal(gltf_from_world(poses_of(4, 25), level=False)[:3, :3], np.diag([1, -1, -1]))


def test_a_camera_that_looks_straight_down_still_gives_a_rotation():
    pose = np.eye(4)
    pose[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    looking_up = np.stack([pose] * 2)
    assert np.linalg.det(gltf_from_world(looking_up)[:3, :3]) == pytest.approx(1)
