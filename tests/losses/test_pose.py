import dataclasses
import math

import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.losses.pose import pose_terms
from tests.losses.helpers import MAPS, near, scene, turn


def full(target):
    return torch.ones(target.pointmap_world.shape[:-1], dtype=torch.bool)


def turned(target, view, rotation):
    """The same record with the world map of one view turned about the world's origin."""
    world = target.pointmap_world.clone()
    world[:, view] = world[:, view] @ rotation.T
    return dataclasses.replace(target, pointmap_world=world)


def test_a_student_that_agrees_has_no_error_whatever_its_scales():
    target = scene()
    scaled = dataclasses.replace(
        target, pointmap_world=5 * target.pointmap_world, pointmap_camera=0.3 * target.pointmap_camera
    )
    rotation, translation = pose_terms(scaled, target, full(target))
    assert rotation.item() < 1e-4
    assert translation.item() < 1e-4


def test_a_view_turned_by_ten_degrees_costs_ten_degrees_in_each_of_its_pairs():
    target = scene(views=3)
    rotation, _ = pose_terms(turned(target, 2, turn(10)), target, full(target))
    assert math.degrees(rotation.item()) == pytest.approx(10 * 2 / 3, rel=1e-3)


def test_turning_the_whole_world_costs_nothing():
    target = scene()
    world = target.pointmap_world @ turn(70, axis=0).T
    rotation, translation = pose_terms(dataclasses.replace(target, pointmap_world=world), target, full(target))
    assert rotation.item() < 1e-4
    assert translation.item() < 1e-4


def test_a_camera_moved_by_a_tenth_of_the_scene_costs_about_that_much():
    target = scene(batch=1, views=2)
    size = target.pointmap_world.norm(dim=-1).mean()
    world = target.pointmap_world.clone()
    world[:, 1, ..., 0] += 0.1 * size
    rotation, translation = pose_terms(dataclasses.replace(target, pointmap_world=world), target, full(target))
    assert rotation.item() < 1e-4
    assert translation.item() == pytest.approx(0.1, rel=0.2)


def test_poses_of_the_teacher_are_found_in_its_maps_where_they_are_not_given():
    target = scene()
    student = near(target)
    given = pose_terms(student, target, full(target))
    found = pose_terms(student, dataclasses.replace(target, world_from_camera=None), full(target))
    torch.testing.assert_close(found, given, rtol=1e-3, atol=1e-5)


def test_following_the_gradient_turns_a_view_back():
    target = scene(batch=1, views=2)
    start = turned(target, 1, turn(25))
    world = start.pointmap_world.clone().requires_grad_()
    optimiser = torch.optim.Adam([world], lr=0.02)
    errors = []
    for _ in range(60):
        optimiser.zero_grad()
        rotation, translation = pose_terms(dataclasses.replace(start, pointmap_world=world), target, full(target))
        (rotation + translation).backward()
        assert torch.isfinite(world.grad).all()
        optimiser.step()
        errors.append(math.degrees(rotation.item()))
    assert errors[0] == pytest.approx(25, rel=1e-3)
    assert errors[-1] < 3


def test_views_whose_rotation_cannot_be_told_are_left_out():
    target = scene(batch=1, views=2)
    maps = {name: getattr(target, name).clone() for name in MAPS}
    maps["pointmap_camera"][:, 1] = torch.tensor([0.0, 0.0, 1.0])
    student = dataclasses.replace(target, **maps)
    for name in MAPS:
        getattr(student, name).requires_grad_()
    rotation, translation = pose_terms(student, target, full(target))
    assert rotation.item() == translation.item() == 0
    (rotation + translation).backward()
    assert torch.isfinite(student.pointmap_camera.grad).all()


def test_large_maps_are_thinned_out_and_give_the_same_answer():
    target = scene(batch=1, views=2, height=90, width=120)
    rotation, _ = pose_terms(turned(target, 1, turn(10)), target, full(target))
    assert math.degrees(rotation.item()) == pytest.approx(10, rel=1e-3)


def test_a_student_without_a_map_is_refused():
    target = scene()
    with pytest.raises(ConfigError, match="of the student"):
        pose_terms(dataclasses.replace(target, pointmap_camera=None), target, full(target))
