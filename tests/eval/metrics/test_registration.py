import numpy as np
import pytest

from distill3d.eval.metrics.registration import align_by_medians, confident_similarity
from tests.geometry.cases import generator, random_rotation


def maps(seed=0):
    return np.random.default_rng(seed).normal(size=(2, 6, 7, 3)) + np.array([0, 0, 4.0])


EVERYWHERE = np.ones((2, 6, 7), dtype=bool)


def test_medians_take_away_depth_and_size_but_no_rotation():
    truth = maps()
    found = align_by_medians(0.2 * truth + np.array([0, 0, 9.0]), truth, EVERYWHERE)
    np.testing.assert_allclose(found.predicted, found.truth, atol=1e-9)
    assert found.truth_scale / found.predicted_scale == pytest.approx(5)
    turned = truth @ random_rotation(generator(0)).numpy().T
    assert np.abs(align_by_medians(turned, truth, EVERYWHERE).predicted - found.truth).mean() > 0.1


def test_only_confident_points_decide():
    source = maps().reshape(-1, 3)
    target = 2 * source + 1
    confidence = np.ones(len(source))
    confidence[:20] = 5
    target[20:] += 100 * np.random.default_rng(1).normal(size=(len(source) - 20, 3))
    fit = confident_similarity(source, target, confidence, percentile=80)
    assert float(fit.scale) == pytest.approx(2)
    assert fit.translation.tolist() == pytest.approx([1, 1, 1])
    # Fewer than three confident points are not enough: then all decide.
    lonely = np.arange(len(source), dtype=float)
    assert float(confident_similarity(source, 2 * source, lonely, percentile=99.5).scale) == pytest.approx(2)
