import dataclasses

import pytest
import torch

from distill3d.errors import DataError
from distill3d.eval.baselines import fit_baselines
from distill3d.geometry.poses import transform_points
from distill3d.types import Views
from tests.infer.exact import HEIGHT, WIDTH, Place


def known(place, views=slice(None)):
    return Views(
        images=place.views().images[:, views],
        depth=place.depth[:, views],
        intrinsics=place.intrinsics[:, views],
        world_from_camera=place.world_from_camera[:, views],
    )


def test_the_constant_depth_is_the_median_of_the_training_depth_for_every_view():
    place = Place(5)
    answer = fit_baselines([known(place)]).constant_depth(Place(3).views())
    assert answer.pointmap_camera is not None
    torch.testing.assert_close(
        answer.pointmap_camera[..., 2].unique(), place.depth.median().reshape(1), atol=1e-2, rtol=0
    )
    assert torch.equal(answer.pointmap_world, answer.pointmap_camera)
    assert torch.equal(answer.world_from_camera, torch.eye(4).expand(1, 3, 4, 4))
    torch.testing.assert_close(answer.intrinsics, place.intrinsics[:, :3])


def test_the_mean_pointmap_is_the_mean_of_local_and_world_maps():
    places = [Place(4, seed) for seed in range(3)]
    answer = fit_baselines(known(place) for place in places).mean_pointmap(Place(3).views())
    local = torch.cat([place.local for place in places])
    world = torch.cat([transform_points(place.world_from_camera, place.local) for place in places])
    assert answer.pointmap_camera is not None
    assert answer.pointmap_world is not None
    torch.testing.assert_close(answer.pointmap_camera[0, 1], local.mean(dim=(0, 1)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answer.pointmap_world[0, 0], world[:, 0].mean(dim=0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answer.pointmap_world[0, 2], world[:, 1:].mean(dim=(0, 1)), atol=1e-5, rtol=1e-5)


def test_unknown_depth_and_padding_do_not_enter_the_means():
    place = Place(3)
    views = known(place)
    assert views.depth is not None
    depth, valid = views.depth.clone(), torch.ones(1, 3, HEIGHT, WIDTH, dtype=torch.bool)
    depth[:, 0, 0], valid[:, 1, 0] = 0, False
    depth[:, 1, 0] = torch.nan
    answer = fit_baselines([dataclasses.replace(views, depth=depth, valid=valid)]).mean_pointmap(place.views())
    assert answer.pointmap_camera is not None
    torch.testing.assert_close(answer.pointmap_camera[0, 0, 0], place.local[0, 2, 0])


def test_single_views_make_baselines_too():
    answer = fit_baselines([known(Place(1))]).mean_pointmap(Place(2).views())
    assert answer.pointmap_world is not None
    torch.testing.assert_close(answer.pointmap_world[0, 1], Place(1).local[0, 0])


def test_training_groups_without_truth_or_of_another_size_are_refused_in_words():
    with pytest.raises(DataError, match="not one training group"):
        fit_baselines([Place(2).views()])
    fitted = fit_baselines([known(Place(2)), Place(2).views()])
    with pytest.raises(DataError, match="same canvas"):
        fitted.constant_depth(Views(images=torch.zeros(1, 2, 3, 8, 8)))
