import dataclasses

import numpy as np
import pytest
import torch

from distill3d.errors import OutputError
from distill3d.export.cloud import gather_cloud
from distill3d.types import Reconstruction
from tests.export.synthetic import room_reconstruction


@pytest.fixture(scope="module")
def room() -> Reconstruction:
    return room_reconstruction(3, 24, 32)


def keep_only(room: Reconstruction, keep: torch.Tensor) -> Reconstruction:
    return dataclasses.replace(room, keep=keep)


def test_every_kept_pixel_becomes_one_point_with_its_colour_confidence_and_view(room):
    keep = torch.rand(room.keep.shape, generator=torch.Generator().manual_seed(1)) > 0.5
    cloud = gather_cloud(keep_only(room, keep))
    views, rows, columns = (index.numpy() for index in keep[0].nonzero(as_tuple=True))
    assert len(cloud) == int(keep.sum())
    np.testing.assert_array_equal(cloud.points, room.prediction.pointmap_world[0, views, rows, columns].numpy())
    np.testing.assert_array_equal(cloud.view, views)
    photo = (room.views.images[0, views, :, rows, columns] * 255).round().byte().numpy()
    np.testing.assert_array_equal(cloud.colors, photo)
    np.testing.assert_array_equal(cloud.confidence, room.prediction.confidence_world[0, views, rows, columns].numpy())


def test_a_point_that_is_not_finite_is_left_out(room):
    pointmap = room.prediction.pointmap_world.clone()
    pointmap[0, 0, 3, 4, 1] = float("nan")
    pointmap[0, 1, 0, 0, 0] = float("inf")
    broken = dataclasses.replace(room, prediction=dataclasses.replace(room.prediction, pointmap_world=pointmap))
    cloud = gather_cloud(broken)
    assert len(cloud) == room.keep.numel() - 2
    assert np.isfinite(cloud.points).all()


def test_the_choice_above_max_points_is_the_same_every_time_and_keeps_the_order(room):
    first, again, other = (gather_cloud(room, max_points=100, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.points, again.points)
    assert not np.array_equal(first.points, other.points)
    assert len(first) == 100
    assert (np.diff(first.view) >= 0).all()
    # Even over the views: 100 of three equal views, so about 33 each.
    assert np.bincount(first.view, minlength=3).min() > 15


def test_below_max_points_nothing_is_dropped(room):
    assert len(gather_cloud(room, max_points=10**6)) == room.keep.numel()


def test_an_empty_cloud_says_what_to_try(room):
    with pytest.raises(OutputError, match=r"no point to write: 0 of 2304 pixels.*lower confidence percentile"):
        gather_cloud(keep_only(room, torch.zeros_like(room.keep)))


def test_normals_are_unit_vectors_that_face_the_camera_and_lie_across_the_surface(room):
    cloud = gather_cloud(room)
    centers = room.prediction.world_from_camera[0, cloud.view, :3, 3].numpy()
    np.testing.assert_allclose(np.linalg.norm(cloud.normal, axis=1), 1, atol=1e-5)
    facing = ((centers - cloud.points) * cloud.normal).sum(axis=1) > 0
    assert facing.mean() > 0.99
    # View 0 looks down by 12 degrees: the floor's normals point against gravity as it sees it.
    gravity = np.array([0, np.cos(np.radians(12)), np.sin(np.radians(12))])
    turned = room.prediction.world_from_camera[0, 0, :3, :3].numpy() @ gravity
    upward = (cloud.normal @ turned) < -0.999
    assert upward.mean() > 0.1  # a good part of the picture is floor


def test_a_reconstruction_without_confidence_gets_ones(room):
    plain = dataclasses.replace(room, prediction=dataclasses.replace(room.prediction, confidence_world=None))
    assert (gather_cloud(plain).confidence == 1).all()
