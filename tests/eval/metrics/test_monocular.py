import math
from dataclasses import replace

import numpy as np
import pytest

from distill3d.eval.metrics.monocular import MonocularPrediction, MonocularTruth, monocular_scores
from distill3d.eval.metrics.sample import nearest_valid_pixels


def scene(height=40, width=50):
    """A slope with a box in front of it, and its points by a camera of known width."""
    depth = 3 + np.linspace(0, 1, width)[None] + np.linspace(0, 0.5, height)[:, None]
    depth[10:30, 15:35] = 2
    x, y = np.meshgrid((np.arange(width) + 0.5) / width - 0.5, (np.arange(height) + 0.5) / width - 0.4)
    points = np.stack([x * depth, y * depth, depth], axis=-1)
    box = np.zeros((height, width), dtype=bool)
    box[10:30, 15:35] = True
    return MonocularTruth(
        depth=depth,
        points=points,
        valid=np.ones_like(box),
        focal_x=1.0,
        is_metric=True,
        sharp_boundary=True,
        segments=(box,),
    )


def exact(truth):
    return MonocularPrediction(depth_metric=truth.depth, points_metric=truth.points, focal_x=truth.focal_x)


def test_a_perfect_prediction_scores_perfectly_in_every_discipline():
    scores = monocular_scores(exact(scene()), scene())
    assert len(scores) == 21
    for name, value in scores.items():
        perfect = 1 if name.endswith(("delta1", "f1")) else 0
        assert value == pytest.approx(perfect, abs=1e-9), name


def test_what_is_not_known_is_forgiven_and_nothing_else():
    truth = scene()
    scaled = MonocularPrediction(depth_scale_invariant=3 * truth.depth, points_scale_invariant=3 * truth.points)
    scores = monocular_scores(scaled, truth)
    assert "depth_metric.rel" not in scores
    assert scores["depth_scale_invariant.rel"] == pytest.approx(0, abs=1e-9)
    assert scores["points_scale_invariant.rel"] == pytest.approx(0, abs=1e-9)
    moved = MonocularPrediction(
        depth_affine_invariant=3 * truth.depth + 1, points_affine_invariant=3 * truth.points + np.array([0, 0, 1.0])
    )
    scores = monocular_scores(moved, truth)
    assert "depth_scale_invariant.rel" not in scores
    assert scores["depth_affine_invariant.rel"] == pytest.approx(0, abs=1e-9)
    assert scores["points_affine_invariant.rel"] == pytest.approx(0, abs=1e-9)
    forgiven_too_much = MonocularPrediction(depth_scale_invariant=3 * truth.depth + 1)
    assert monocular_scores(forgiven_too_much, truth)["depth_scale_invariant.rel"] > 0.01
    disparity = MonocularPrediction(disparity_affine_invariant=5 / truth.depth + 2)
    assert monocular_scores(disparity, truth)["disparity_affine_invariant.rel"] == pytest.approx(0, abs=1e-9)


def test_the_metric_prediction_on_paper():
    truth = scene()
    scores = monocular_scores(MonocularPrediction(depth_metric=1.1 * truth.depth, focal_x=0.5), truth)
    assert scores["depth_metric.rel"] == pytest.approx(0.1, abs=1e-6)
    assert scores["fov_x.deviation"] == pytest.approx(90 - math.degrees(2 * math.atan(0.5)))
    # Another threshold is passed at once, everywhere.
    assert monocular_scores(MonocularPrediction(depth_metric=1.3 * truth.depth), truth)["depth_metric.delta1"] == 0


def test_nan_outside_the_mask_changes_nothing_and_an_empty_mask_gives_nan():
    truth = scene()
    valid = truth.valid.copy()
    valid[:5] = False
    noisy = truth.depth * np.random.default_rng(0).uniform(0.9, 1.1, truth.depth.shape)
    before = monocular_scores(MonocularPrediction(depth_metric=noisy.copy()), replace(truth, valid=valid))
    noisy[:5] = np.nan
    assert monocular_scores(MonocularPrediction(depth_metric=noisy), replace(truth, valid=valid)) == before
    empty = monocular_scores(exact(truth), replace(truth, valid=~truth.valid))
    assert all(math.isnan(value) for name, value in empty.items() if not name.startswith("fov"))


def test_the_small_set_takes_the_nearest_valid_pixel_of_each_cell():
    valid = np.zeros((4, 4), dtype=bool)
    valid[0, 1] = valid[3, 3] = True
    found, row, column = nearest_valid_pixels(valid, (2, 2))
    assert found.tolist() == [[True, False], [False, True]]
    assert (row[0, 0], column[0, 0], row[1, 1], column[1, 1]) == (0, 1, 3, 3)
    assert not nearest_valid_pixels(np.zeros((3, 5), dtype=bool))[0].any()


def test_a_depth_that_the_fit_makes_negative_is_far_unless_the_formula_is_taken_by_the_letter():
    truth = scene()
    depth = truth.depth.copy()
    depth[0, :5] = -40.0
    prediction = MonocularPrediction(depth_affine_invariant=depth)
    share = 1 - 5 / depth.size
    assert monocular_scores(prediction, truth)["depth_affine_invariant.delta1"] == pytest.approx(share, abs=1e-12)
    by_letter = monocular_scores(prediction, truth, signed_ratio=True)
    assert by_letter["depth_affine_invariant.delta1"] == 1.0
