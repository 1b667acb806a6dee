import numpy as np
import torch

from distill3d.eval.metrics import nearest
from distill3d.eval.metrics.nearest import brute_force, nearest_points


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
