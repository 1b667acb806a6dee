import numpy as np
import pytest

from distill3d.eval.benchmarks._moge_sample import prepare


def slanted(height=60, width=80, cx=0.5, cy=0.5):
    """A plane z = 2 + x seen by a camera with its principal point at (cx, cy), in units of the picture."""
    k = np.array([[1.0, 0, cx], [0, 80 / 60, cy], [0, 0, 1]])
    u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    x = (u - cx) / k[0, 0]
    depth = 2 / (1 - x)
    image = np.stack([255 * u, 255 * v, 0 * u], axis=-1).astype(np.uint8)
    return image, depth, k


@pytest.mark.parametrize(("cx", "cy"), [(0.5, 0.5), (0.58, 0.46)])
@pytest.mark.parametrize("size", [(60, 80), (45, 60), (40, 40)])
def test_the_geometry_stays_where_it_is_and_the_camera_is_centred(cx, cy, size):
    image, depth, k = slanted(cx=cx, cy=cy)
    made = prepare(image, depth, k, size)
    assert made.image.shape == (*size, 3)
    assert np.isfinite(made.depth).mean() > 0.97
    # Square pixels, and no more of the view than there is.
    assert made.focal[0] * size[1] == pytest.approx(made.focal[1] * size[0])
    # Points of the plane, turned back into the frame of the raw camera, lie on it.
    middle = np.linalg.inv(k) @ np.array([0.5, 0.5, 1])
    turn = _shortest(middle / np.linalg.norm(middle))
    points = made.points[np.isfinite(made.depth)] @ turn
    assert np.abs(points[:, 2] - 2 - points[:, 0]).max() < 0.08 * points[:, 2].max()
    assert np.median(np.abs(points[:, 2] - 2 - points[:, 0])) < 0.02


def _shortest(direction):
    """Rotation that takes a direction to (0, 0, 1), by Rodrigues' formula."""
    axis = np.cross(direction, [0, 0, 1])
    sine, cosine = np.linalg.norm(axis), direction[2]
    if sine == 0:
        return np.eye(3)
    x, y, z = axis / sine
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + sine * cross + (1 - cosine) * cross @ cross


def test_a_centred_camera_of_the_same_size_changes_nothing():
    image, depth, k = slanted()
    made = prepare(image, depth, k, (60, 80))
    np.testing.assert_allclose(made.depth, depth, rtol=1e-6)
    np.testing.assert_array_equal(made.image, image)


def test_unknown_and_far_too_distant_depth_is_dropped():
    image, depth, k = slanted()
    depth[:10] = 0
    depth[20, 20] = np.nan
    depth[30, 30] = 1e6
    made = prepare(image, depth, k, (60, 80))
    assert np.isnan(made.depth[:9]).all()
    assert np.isnan(made.depth[30, 30])


def test_segments_that_are_large_enough_and_something_are_kept():
    image, depth, k = slanted(120, 160)
    labels = np.zeros((120, 160), dtype=np.int64)
    labels[:60, :80], labels[60:, :80], labels[:5, 150:] = 1, 2, 3
    made = prepare(image, depth, k, (120, 160), labels, {"chair": 1, "sky": 2, "cup": 3, "lamp": 7})
    assert [int(segment.sum()) for segment in made.segments] == [4800]
