import math
from dataclasses import replace

import pytest
import torch

from distill3d.errors import DataError
from distill3d.eval import benchmark as registry
from distill3d.eval.benchmark import Sample, Scene
from distill3d.eval.benchmarks.synthetic import (
    COLUMNS,
    HELD_OUT_SEED,
    KINDS,
    TRAIN_SEED,
    list_samples,
    photograph,
    pooled,
    samples_from,
    score,
)
from distill3d.eval.results import aggregate
from distill3d.types import Prediction
from tests.eval.perfect import say_a_number_everywhere, say_nothing_of_the_left_half, say_the_truth
from tests.geometry.cases import generator, random_pose


@pytest.fixture(scope="module")
def scenes():
    return {kind: photograph(kind, HELD_OUT_SEED, views=3, size=(48, 64)) for kind in KINDS}


def result_of(prediction, views):
    found = score(prediction, Scene(views=views), Sample(key="a"), "clean")
    return aggregate(registry.get("synthetic"), {"a": found}, {"a": ""}, {}).values


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_scores_perfectly_in_every_kind_of_scene(scenes, kind):
    views = scenes[kind]
    answer = replace(say_the_truth(views), confidence_camera=torch.ones(views.depth.shape))
    values = result_of(answer, views)
    assert set(values) == set(COLUMNS)
    for metric in ("depth_rel", "points_error", "points_error_sim3", "fov_deg", "scale"):
        assert values[metric] == pytest.approx(0, abs=1e-3), metric
    assert values["depth_delta1"] == pytest.approx(1)
    assert values["auc_5"] > 0.99
    assert values["boundary_f1"] > 0.9


def test_what_a_prediction_is_silent_about_is_told(scenes):
    views = scenes["indoor"]
    half = result_of(say_nothing_of_the_left_half(views), views)
    assert half["missing"] == pytest.approx(0.5, abs=0.05)
    assert half["depth_rel"] == pytest.approx(0, abs=1e-6)
    assert result_of(say_a_number_everywhere(math.nan)(views), views)["missing"] == 1


def test_another_world_and_scale_are_told_apart_from_errors(scenes):
    views = scenes["indoor"]
    answer = say_the_truth(views)
    scaled = replace(answer, pointmap_world=2 * answer.pointmap_world, pointmap_camera=2 * answer.pointmap_camera)
    poses = answer.world_from_camera.clone()
    poses[..., :3, 3] *= 2
    values = result_of(replace(scaled, world_from_camera=poses, depth=None), views)
    assert values["scale"] == pytest.approx(math.log(2), abs=1e-3)
    assert values["depth_rel"] == pytest.approx(0, abs=1e-3)
    assert values["points_error"] == pytest.approx(0, abs=1e-3)
    wrong = replace(answer, world_from_camera=random_pose(generator(0), 1, 3).float(), pointmap_world=None)
    assert result_of(wrong, views)["auc_30"] < 0.5


def test_a_confidence_that_knows_the_error_is_better_calibrated_than_chance(scenes):
    views = scenes["indoor"]
    answer = say_the_truth(views)
    noise = torch.rand(answer.depth.shape, generator=generator(1)) * 0.5
    noisy = replace(answer, pointmap_camera=answer.pointmap_camera * (1 + noise[..., None]), depth=None)
    knowing = result_of(replace(noisy, confidence_camera=1 / (0.01 + (noise - 0.25).abs())), views)
    assert knowing["ause"] < 0.3 * knowing["ause_random"]


def test_a_method_that_says_nothing_has_no_numbers(scenes):
    values = result_of(Prediction(), scenes["indoor"])
    assert values.pop("missing") == 1
    assert all(math.isnan(value) for value in values.values())
    assert pooled({}) == {}


def test_scenes_are_held_out_repeatable_and_of_known_kinds():
    samples = list_samples(None, None)
    assert len(samples) == 18
    assert [sample.group for sample in samples[:3]] == list(KINDS)
    assert len(list_samples(None, 4)) == 4
    seeds = {sample.notes["seed"] for sample in samples}
    assert not seeds & {sample.notes["seed"] for sample in samples_from(TRAIN_SEED)}
    again = photograph("outdoor", HELD_OUT_SEED, views=2, size=(24, 32))
    assert torch.equal(again.images, photograph("outdoor", HELD_OUT_SEED, views=2, size=(24, 32)).images)
    with pytest.raises(DataError, match="indoor, object, outdoor"):
        photograph("underwater", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_views_of_a_scene_overlap(scenes, kind):
    views = scenes[kind]
    truth = say_the_truth(views)
    assert truth.pointmap_world is not None
    points = truth.pointmap_world[0, 1:][views.depth[0, 1:] > 0]
    seen = points @ torch.eye(3) / points[:, 2:]
    k = views.intrinsics[0, 0]
    column, row = k[0, 0] * seen[:, 0] + k[0, 2], k[1, 1] * seen[:, 1] + k[1, 2]
    inside = (points[:, 2] > 0) & (column > 0) & (column < 63) & (row > 0) & (row < 47)
    assert inside.float().mean() > 0.2
