from dataclasses import replace

import pytest

from distill3d.eval.known_cameras import known_camera_errors
from distill3d.infer.reconstruct import reconstruct
from tests.geometry.cases import generator, random_rotation
from tests.infer.exact import ExactModel, Place


@pytest.fixture(scope="module")
def place():
    return Place(5)


@pytest.fixture(scope="module")
def found(place):
    return reconstruct(ExactModel(place, sizes=(2.0,)), place.views())


def truth(place):
    return replace(place.views(), intrinsics=place.intrinsics, world_from_camera=place.world_from_camera)


def test_exact_cameras_of_another_scale_have_no_error(found, place):
    errors = known_camera_errors(found, truth(place))
    assert errors["num_pairs"] == 10
    assert errors["rotation_max_deg"] < 0.1
    assert errors["translation_median_deg"] < 0.1
    assert errors["position_error"] < 1e-3
    assert errors["focal_percent"] < 0.5


def test_a_camera_that_is_turned_in_truth_shows_up_in_the_pairs_it_is_part_of(found, place):
    turned = place.world_from_camera.clone()
    turned[:, 4, :3, :3] = random_rotation(generator(3), 1, dtype=turned.dtype) @ turned[:, 4, :3, :3]
    errors = known_camera_errors(found, replace(truth(place), world_from_camera=turned))
    assert errors["rotation_to_view_0_deg"][3] > 1
    assert max(errors["rotation_to_view_0_deg"][:3]) < 0.1
    assert errors["rotation_median_deg"] < 0.1  # four of ten pairs
    assert errors["rotation_max_deg"] == pytest.approx(errors["rotation_to_view_0_deg"][3], abs=0.1)


def test_nothing_known_gives_nothing(found, place):
    assert known_camera_errors(found, place.views()) == {}
