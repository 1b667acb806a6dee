import dataclasses
import json
import math

import pytest
import torch

from distill3d.data.fit import ImageFit
from distill3d.errors import ConfigError, DataError
from distill3d.eval.baselines import fit_baselines
from distill3d.eval.heldout import score_group, score_heldout
from distill3d.eval.predictions import predict_heldout, prediction_path
from distill3d.eval.scores import COLUMNS, load_scores
from distill3d.eval.truth import truth_of
from distill3d.geometry.poses import transform_points
from distill3d.types import Prediction, Views
from tests.eval.annotated import FIT, GROUPS, exact, write_scenes
from tests.geometry.cases import generator
from tests.infer.exact import Place

PLACE = Place(4)
VIEWS = Views(
    images=PLACE.views().images,
    depth=PLACE.depth,
    intrinsics=PLACE.intrinsics,
    world_from_camera=PLACE.world_from_camera,
)
TRUTH = truth_of(VIEWS)
WORLD = transform_points(PLACE.world_from_camera, PLACE.local)


def scored(**maps):
    return score_group(Prediction(**maps), VIEWS, TRUTH)


def test_the_truth_scores_perfectly_at_any_size():
    scores = scored(pointmap_world=3 * WORLD, pointmap_camera=0.2 * PLACE.local)
    assert scores.values["depth_delta1"] == 1
    for name in ("depth_rel", "points_error", "points_error_sim3", "accuracy", "completeness", "missing"):
        assert scores.values[name] == pytest.approx(0, abs=1e-5), name
    assert max(scores.rotation_deg) < 0.05
    assert max(scores.translation_deg) < 0.2
    assert len(scores.rotation_deg) == 6


def test_depth_that_is_ten_percent_off_in_five_of_twelve_rows_has_a_tenth_of_that_as_rel():
    views = dataclasses.replace(VIEWS, depth=torch.full_like(PLACE.depth, 2.0))
    flat = torch.full_like(PLACE.depth, 2.0)
    flat[:, :, : flat.shape[2] // 2 - 1] *= 1.1  # fewer than half, so the median stays
    said = Prediction(depth=flat, intrinsics=PLACE.intrinsics, world_from_camera=PLACE.world_from_camera)
    scores = score_group(said, views, truth_of(views))
    assert scores.values["depth_rel"] == pytest.approx(0.1 * 5 / 12, abs=1e-6)
    assert scores.values["depth_delta1"] == 1


def test_a_known_rotation_of_every_other_view_is_measured():
    angle = math.radians(8)
    turn = torch.eye(4)
    turn[0, 0] = turn[2, 2] = math.cos(angle)
    turn[0, 2], turn[2, 0] = math.sin(angle), -math.sin(angle)
    pose = PLACE.world_from_camera.clone()
    pose[:, 1:] = pose[:, 1:] @ turn
    scores = scored(depth=PLACE.depth, intrinsics=PLACE.intrinsics, world_from_camera=pose)
    assert scores.rotation_deg[:3] == pytest.approx([8, 8, 8], abs=1e-3)
    assert scores.values["points_error"] > 0.05


def test_pixels_without_a_finite_prediction_are_told_and_not_rewarded():
    world, local = WORLD.clone(), PLACE.local.clone()
    world[:, :, :3] = torch.nan
    scores = scored(pointmap_world=world, pointmap_camera=local)
    assert scores.values["missing"] == pytest.approx(0.25)
    assert scores.values["points_error"] == pytest.approx(0, abs=1e-5)


def test_the_models_own_mask_hides_nothing():
    broken = WORLD.clone()
    broken[:, :, :6] = 0
    mask = torch.ones(1, 4, 12, 16, dtype=torch.bool)
    mask[:, :, :6] = False
    assert scored(pointmap_world=broken, pointmap_camera=PLACE.local, valid=mask).values["points_error"] > 0.2


def test_a_prediction_of_nothing_has_no_score_but_does_not_fail():
    scores = scored(confidence_world=torch.ones(1, 4, 12, 16))
    assert math.isnan(scores.values["depth_rel"])
    assert scores.values["missing"] == 1
    assert scores.rotation_deg == ()


def noisy(views):
    found = exact(views)
    assert found.pointmap_world is not None
    assert found.pointmap_camera is not None
    noise = generator(views.images.shape[1])
    return dataclasses.replace(
        found,
        pointmap_world=found.pointmap_world + 0.1 * torch.randn(found.pointmap_world.shape, generator=noise),
        pointmap_camera=found.pointmap_camera * (1 + 0.05 * torch.randn(found.pointmap_camera.shape, generator=noise)),
    )


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    root = tmp_path_factory.mktemp("heldout")
    manifest = write_scenes(root / "scenes")
    baselines = fit_baselines([VIEWS])
    methods = {
        "model": noisy,
        "teacher": exact,
        "mean pointmap": baselines.mean_pointmap,
        "constant depth": baselines.constant_depth,
    }
    folders = {}
    for name, method in methods.items():
        folders[name] = root / name
        predict_heldout(method, manifest, GROUPS, FIT, folders[name], settings={"name": name})
    return manifest, folders


def test_methods_stand_in_the_order_they_deserve(evaluation):
    manifest, folders = evaluation
    scores = score_heldout(folders, manifest, GROUPS, FIT)
    values = {name: method.values for name, method in scores.methods.items()}
    assert list(values) == ["model", "teacher", "mean pointmap", "constant depth"]
    for name in ("depth_rel", "points_error", "points_error_sim3", "rotation_deg", "translation_deg"):
        assert values["teacher"][name] < values["model"][name] < values["constant depth"][name], name
    for name in ("depth_delta1", "rra_15", "auc_30"):
        assert values["teacher"][name] >= values["model"][name] > values["mean pointmap"][name], name
    assert values["teacher"]["auc_5"] > 0.97
    # Identity poses say nothing about directions, and the true rotations of this place are large.
    assert values["constant depth"]["translation_deg"] == 90
    assert values["constant depth"]["auc_30"] == 0


def test_groups_without_truth_are_counted_with_the_reason(evaluation):
    manifest, folders = evaluation
    scores = score_heldout(folders, manifest, GROUPS, FIT)
    assert list(scores.skipped) == [GROUPS[2].key]
    assert "no depth, intrinsics, poses" in scores.skipped[GROUPS[2].key]
    assert scores.settings["num_groups"] == 2
    assert "1 more were not scored" in scores.markdown()
    with pytest.raises(DataError, match="not one of 1 held-out groups"):
        score_heldout(folders, manifest, GROUPS[2:], FIT)


def test_the_file_is_the_same_to_the_last_byte_and_reads_back(evaluation, tmp_path):
    manifest, folders = evaluation
    for name in ("one", "two"):
        score_heldout(folders, manifest, GROUPS, FIT).save(tmp_path / f"{name}.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    back = load_scores(tmp_path / "one.json")
    back.save(tmp_path / "three.json")
    assert (tmp_path / "three.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert back.markdown() == score_heldout(folders, manifest, GROUPS, FIT).markdown()
    content = json.loads((tmp_path / "one.json").read_text())
    assert all(method["protocol"] == "heldout.v1" for method in content["methods"].values())


def test_the_order_of_groups_changes_no_aggregate(evaluation):
    manifest, folders = evaluation
    there = score_heldout(folders, manifest, GROUPS, FIT).rows()
    back = score_heldout(folders, manifest, GROUPS[::-1], FIT).rows()
    assert there == back


def test_the_table_has_a_row_per_method_and_a_column_per_metric(evaluation):
    manifest, folders = evaluation
    lines = score_heldout(folders, manifest, GROUPS, FIT).markdown().splitlines()
    assert len(lines) == 2 + 4 + 2
    assert all(line.count("|") == len(COLUMNS) + 2 for line in lines[:6])
    assert "Protocol heldout.v1: 2 held-out groups" in lines[-1]


def test_predictions_made_otherwise_or_incomplete_are_not_scored(evaluation, tmp_path):
    manifest, folders = evaluation
    with pytest.raises(ConfigError, match="other settings"):
        score_heldout(folders, manifest, GROUPS, ImageFit(long_side=32, multiple=4))
    predict_heldout(exact, manifest, GROUPS[:1], FIT, tmp_path / "half")
    with pytest.raises(ConfigError, match="half lacks 1 of 3 groups"):
        score_heldout({"half": tmp_path / "half"}, manifest, GROUPS, FIT)
    with pytest.raises(ConfigError, match="no method"):
        score_heldout({}, manifest, GROUPS, FIT)


def test_another_number_of_cloud_points_is_another_protocol(evaluation):
    manifest, folders = evaluation
    scores = score_heldout({"teacher": folders["teacher"]}, manifest, GROUPS[:1], FIT, cloud_points=50)
    assert scores.protocol == "heldout.v1+cloud50"


def test_photos_without_truth_may_be_compared_with_the_teacher(evaluation):
    manifest, folders = evaluation
    scores = score_heldout(folders, manifest, GROUPS, FIT, reference=folders["teacher"])
    assert scores.protocol == "agreement.v1"
    assert scores.skipped == {}
    assert scores.methods["teacher"].values["depth_rel"] == pytest.approx(0, abs=1e-6)
    assert scores.methods["model"].values["depth_rel"] > 0.01
    assert prediction_path(folders["teacher"], GROUPS[2]).exists()
