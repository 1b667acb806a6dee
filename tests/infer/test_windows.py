import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill3d.errors import ConfigError, GeometryError
from distill3d.geometry.align import umeyama
from distill3d.geometry.poses import transform_points
from distill3d.infer.windows import Window, join_windows, move_prediction, plan_windows
from distill3d.types import Prediction
from tests.geometry.cases import generator, random_pose
from tests.infer.exact import Place


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 200), st.integers(3, 40))
def test_windows_cover_every_view_once_and_stay_within_the_limit(count, max_views):
    windows = plan_windows(count, max_views)
    anchors = windows[0].anchors
    assert anchors[0] == 0
    assert all(window.anchors == anchors for window in windows)
    assert all(len(window.views) <= max(max_views, 1) for window in windows)
    covered = list(anchors) + [view for window in windows for view in window.others]
    assert sorted(covered) == list(range(count))
    sizes = [len(window.others) for window in windows]
    assert max(sizes) - min(sizes) <= 1


def test_few_views_stay_in_one_window():
    assert plan_windows(5, 5) == [Window(anchors=(0, 1, 2, 3, 4), others=())]


@pytest.mark.parametrize(("max_views", "num_anchors"), [(2, None), (4, 4), (4, 0)])
def test_windows_without_room_are_refused(max_views, num_anchors):
    with pytest.raises(ConfigError, match="anchor"):
        plan_windows(10, max_views, num_anchors)


def test_moving_a_prediction_moves_maps_depth_and_poses_alike():
    place = Place(3)
    world = transform_points(place.world_from_camera, place.local)
    prediction = Prediction(
        pointmap_world=world,
        pointmap_camera=place.local,
        depth=place.depth,
        world_from_camera=place.world_from_camera,
        intrinsics=place.intrinsics,
        metric_scale=torch.ones(1),
    )
    source = torch.randn(1, 9, 3, generator=generator(0))
    pose = random_pose(generator(1), dtype=torch.float32)
    fit = umeyama(source, 3 * (source @ pose[:3, :3].T) + pose[:3, 3])
    moved = move_prediction(prediction, fit)
    assert moved.world_from_camera is not None
    assert moved.pointmap_camera is not None
    assert moved.pointmap_world is not None
    coherent = transform_points(moved.world_from_camera, moved.pointmap_camera)
    torch.testing.assert_close(moved.pointmap_world, coherent, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved.pointmap_camera, 3 * place.local, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved.metric_scale, torch.full((1,), 1 / 3))
    assert moved.intrinsics is prediction.intrinsics


def test_windows_that_share_nothing_finite_say_which_one():
    maps = torch.randn(1, 3, 4, 5, 3, generator=generator(2))
    windows = [Window((0, 1), (2,)), Window((0, 1), (3,))]
    broken = maps.clone()
    broken[:, :2] = torch.nan
    usable = torch.ones(1, 4, 4, 5, dtype=torch.bool)
    with pytest.raises(GeometryError, match="window 1"):
        join_windows(windows, [Prediction(pointmap_world=maps), Prediction(pointmap_world=broken)], usable)
    with pytest.raises(GeometryError, match="max_views"):
        join_windows(windows, [Prediction(pointmap_camera=maps), Prediction(pointmap_camera=maps)], usable)
