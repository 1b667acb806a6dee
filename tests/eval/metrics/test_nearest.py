import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from distill3d.eval.metrics import nearest
from distill3d.eval.metrics.nearest import NearestPoints, brute_force, nearest_points
from distill3d.eval.metrics.points import estimate_normals


def clouds(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(700, 3)), rng.normal(size=(900, 3))


def test_the_tree_and_all_distances_agree(monkeypatch):
    queries, points = clouds()
    monkeypatch.setattr(nearest, "_PAIRS_AT_ONCE", 10_000)  # several blocks
    distance, index = nearest_points(queries, points)
    plain_distance, plain_index = brute_force(torch.from_numpy(queries), torch.from_numpy(points))
    np.testing.assert_allclose(distance, plain_distance, rtol=1e-14)
    np.testing.assert_array_equal(index, plain_index)


def test_points_beyond_the_limit_do_not_count():
    distance, index = nearest_points(np.array([[0.0, 0, 0], [9, 0, 0]]), np.array([[0.5, 0, 0]]), max_distance=1.0)
    assert distance.tolist() == [0.5, np.inf]
    assert index.tolist() == [0, 1]


def test_points_on_a_plane_a_line_and_a_spot_are_found():
    queries, _ = clouds()
    for keep in ((1, 1, 0), (1, 0, 0), (0, 0, 0)):
        flat = queries * np.array(keep, dtype=float)
        assert nearest_points(flat, flat)[0].max() == 0


def test_many_points_at_one_place_are_one_for_a_tree_and_change_nothing():
    queries, points = clouds()
    copied = np.concatenate([points, np.repeat(points[:3], 500, axis=0), np.zeros((2000, 3))])
    found, places = nearest_points(queries, copied)
    plain, _ = brute_force(torch.from_numpy(queries), torch.from_numpy(copied))
    np.testing.assert_allclose(found, plain, rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(queries - copied[places], axis=1), plain, rtol=1e-12)
    tree = NearestPoints(copied, most=30)
    assert len(tree._kept) == len(points) + 3 * 29 + 30  # of the three, one copy stands among the points
    seen = np.zeros(len(copied), dtype=int)
    plain_tree = KDTree(copied)
    for some, index in tree.neighbours(30, at_once=1000):
        seen[some] += 1
        distances = np.linalg.norm(copied[some][:, None] - copied[index], axis=2)
        np.testing.assert_allclose(np.sort(distances), plain_tree.query(copied[some], k=30)[0], atol=1e-12)
    assert (seen == 1).all()


def test_a_cloud_in_one_place_takes_no_square_of_its_size():
    """Two hundred thousand squared would not end in a test."""
    count = 200_000
    spot = np.ones((count, 3))
    scattered = np.random.default_rng(0).uniform(0, 4, (count, 3))
    assert nearest_points(scattered, spot)[0] == pytest.approx(np.linalg.norm(scattered - 1, axis=1))
    assert estimate_normals(spot).shape == (count, 3)
