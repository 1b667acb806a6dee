import numpy as np
import pytest

from distill3d.errors import OutputError
from distill3d.viewer.render import look_from, render_pointcloud

RED, GREEN = [255, 0, 0], [0, 255, 0]
FRONT = np.eye(4)


def draw(points, colors, **settings) -> np.ndarray:
    settings = {"world_from_camera": FRONT, "supersample": 1, "shading": 0.0, "fov_y_deg": 90.0} | settings
    return render_pointcloud(np.array(points, np.float64), np.array(colors, np.uint8), (11, 21), **settings)


def test_a_point_lands_where_the_camera_projects_it():
    # f = 5.5 pixels: x = 1, z = 1 lies 5.5 pixels right of the middle (10.5).
    picture = draw([[1.0, 0.0, 1.0]], [RED])
    assert np.argwhere(picture[..., 3]).tolist() == [[5, 16]]
    assert picture[5, 16].tolist() == [255, 0, 0, 255]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_nearer_point_hides_the_farther(order):
    points, colors = np.array([[0, 0, 1.0], [0, 0, 2.0]])[order], np.array([RED, GREEN])[order]
    assert draw(points, colors)[5, 10, :3].tolist() == RED


def test_a_wide_near_disc_hides_and_is_hidden_by_depth_not_by_size():
    picture = draw([[0, 0, 2.0], [0.1, 0, 1.0]], [RED, GREEN], radius=np.array([1.5, 0.1]))
    assert (picture[..., 0] == 255).sum() > 20
    assert (picture[..., 1] == 255).sum() >= 1


def test_points_behind_the_camera_or_not_finite_are_left_out():
    assert draw([[0, 0, -1.0], [np.nan, 0, 1.0]], [RED, GREEN])[..., 3].max() == 0


def test_a_surface_that_faces_away_is_seen_through():
    picture = draw([[0, 0, 1.0], [0, 0, 2.0]], [RED, GREEN], normal=np.array([[0, 0, 1.0], [0, 0, -1.0]]))
    assert picture[5, 10, :3].tolist() == GREEN


def test_an_empty_cloud_is_background():
    assert (draw(np.zeros((0, 3)), np.zeros((0, 3)), background=(1, 2, 3)) == [1, 2, 3]).all()


def test_the_nearer_of_two_surfaces_darkens_the_rim_of_the_farther():
    x, y = np.meshgrid(np.linspace(-2, 2, 80), np.linspace(-2, 2, 80))
    wall = np.stack([x.ravel(), y.ravel(), np.full(x.size, 2.0)], axis=1)
    points = np.concatenate([wall, [[0, 0, 1.0]]])
    colors = np.full((len(points), 3), 200)
    shaded = draw(points, colors, radius=0.1, shading=6.0)
    assert shaded[5, 10, 0] == 200
    assert shaded[..., 0][shaded[..., 3] > 0].min() < 140


def test_an_empty_size_is_an_error():
    with pytest.raises(OutputError, match="0 x 5"):
        render_pointcloud(np.zeros((1, 3)), np.zeros((1, 3), np.uint8), (0, 5), world_from_camera=FRONT)


@pytest.mark.parametrize("eye", [[0, 0, 5.0], [3, 2, 1.0], [0, 5.0, 0], [0, -5.0, 0]])
def test_the_target_is_in_the_middle_and_the_pose_is_a_rotation(eye):
    pose = look_from(np.array(eye), np.zeros(3), np.array([0.0, 1.0, 0.0]))
    local = np.linalg.inv(pose) @ [0, 0, 0, 1]
    np.testing.assert_allclose(local[:2], 0, atol=1e-9)
    assert local[2] > 0
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
