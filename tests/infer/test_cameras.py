import pytest
import torch

from distill3d.errors import GeometryError
from distill3d.geometry.poses import transform_points
from distill3d.infer.cameras import complete, complete_with_info
from distill3d.types import Prediction, Views
from tests.geometry.cases import generator, random_pose
from tests.infer.exact import FOCAL, HEIGHT, WIDTH, Place

PLACE = Place(4)
WORLD = transform_points(PLACE.world_from_camera, PLACE.local)


def assert_is_the_place(found: Prediction, **tolerance):
    torch.testing.assert_close(found.world_from_camera, PLACE.world_from_camera, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.intrinsics, PLACE.intrinsics, atol=2e-2, rtol=0)
    torch.testing.assert_close(found.depth, PLACE.depth, atol=5e-3, rtol=0)
    torch.testing.assert_close(found.pointmap_world, WORLD, atol=5e-3, rtol=0)
    torch.testing.assert_close(found.pointmap_camera, PLACE.local, atol=5e-3, rtol=0)
    assert torch.equal(found.world_from_camera[:, 0], torch.eye(4)[None])


@pytest.mark.parametrize("method", ["auto", "similarity", "pnp"])
def test_local_maps_of_another_size_are_brought_to_the_world(method):
    sizes = torch.tensor([0.5, 1.0, 2.0, 7.0])[None, :, None, None, None]
    prediction = Prediction(pointmap_world=WORLD, pointmap_camera=PLACE.local * sizes)
    done = complete_with_info(prediction, pose_method=method)
    assert_is_the_place(done.prediction)
    assert done.info["pose_method"] == ("pnp" if method == "pnp" else "similarity")
    assert done.info["local_scale"] == pytest.approx([2, 1, 0.5, 1 / 7], rel=2e-3)
    assert max(done.info["residual"]) < 2e-3
    assert done.info["focal_px"] == pytest.approx([FOCAL] * 4, rel=1e-3)


def test_a_world_map_alone_gives_cameras_by_pnp():
    done = complete_with_info(Prediction(pointmap_world=WORLD))
    assert done.info["pose_method"] == "pnp"
    assert_is_the_place(done.prediction)


def test_depth_with_cameras_gives_pointmaps():
    done = complete_with_info(
        Prediction(depth=PLACE.depth, intrinsics=PLACE.intrinsics, world_from_camera=PLACE.world_from_camera)
    )
    assert done.info["pose_method"] == "model"
    assert done.info["intrinsics"] == "model"
    assert_is_the_place(done.prediction)


def test_another_world_is_turned_into_the_camera_of_view_0():
    turn = random_pose(generator(3), dtype=torch.float32).expand(1, 4, 4, 4)
    found = complete(Prediction(pointmap_world=transform_points(turn, WORLD), pointmap_camera=PLACE.local))
    assert_is_the_place(found)


def test_padding_and_broken_pixels_tell_nothing_about_cameras():
    world, local = WORLD.clone(), PLACE.local.clone()
    world[:, :, :, :3] = 99.0
    local[:, :, 0, 5] = torch.nan
    valid = torch.ones(1, 4, HEIGHT, WIDTH, dtype=torch.bool)
    valid[..., :3] = False
    views = Views(images=torch.zeros(1, 4, 3, HEIGHT, WIDTH), valid=valid)
    found = complete(Prediction(pointmap_world=world, pointmap_camera=local), views)
    torch.testing.assert_close(found.world_from_camera, PLACE.world_from_camera, atol=2e-3, rtol=0)
    assert found.depth is not None
    assert (found.depth[:, :, 0, 5] == 0).all()


def test_the_local_map_may_become_the_world_map():
    noisy = WORLD + 0.05 * torch.randn(WORLD.shape, generator=generator(1))
    done = complete_with_info(Prediction(pointmap_world=noisy, pointmap_camera=PLACE.local), points="camera")
    found = done.prediction
    assert found.pointmap_world is not None
    assert found.world_from_camera is not None
    assert found.pointmap_camera is not None
    moved = transform_points(found.world_from_camera, found.pointmap_camera)
    torch.testing.assert_close(found.pointmap_world, moved, atol=1e-5, rtol=1e-5)
    assert 0.01 < min(done.info["residual"]) < 0.06


def test_confidence_tells_which_points_to_trust():
    world = WORLD.clone()
    world[:, :, : HEIGHT // 2] += 3 * torch.randn(1, 4, HEIGHT // 2, WIDTH, 3, generator=generator(2))
    confidence = torch.full(WORLD.shape[:-1], 20.0)
    confidence[:, :, : HEIGHT // 2] = 1.0
    found = complete(Prediction(pointmap_world=world, pointmap_camera=PLACE.local, confidence_world=confidence))
    torch.testing.assert_close(found.world_from_camera, PLACE.world_from_camera, atol=2e-2, rtol=0)


def test_a_view_without_any_usable_pixel_is_named_and_does_not_spoil_the_others():
    world, local = WORLD.clone(), PLACE.local.clone()
    world[:, 2] = torch.nan
    local[:, 2] = torch.nan
    done = complete_with_info(Prediction(pointmap_world=world, pointmap_camera=local))
    assert done.info["undetermined_views"] == [2]
    assert done.info["focal_px"][2] == pytest.approx(FOCAL, rel=1e-3)
    found = done.prediction
    assert found.world_from_camera is not None
    torch.testing.assert_close(found.world_from_camera[:, 3], PLACE.world_from_camera[:, 3], atol=2e-3, rtol=0)
    assert found.depth is not None
    assert (found.depth[:, 2] == 0).all()


def test_one_local_map_is_a_place_of_its_own_but_several_are_not():
    done = complete_with_info(Prediction(pointmap_camera=PLACE.local[:, :1]))
    assert done.prediction.pointmap_world is not None
    torch.testing.assert_close(done.prediction.pointmap_world, PLACE.local[:, :1])
    with pytest.raises(GeometryError, match="where the views are"):
        complete(Prediction(pointmap_camera=PLACE.local))


def test_impossible_wishes_are_refused_in_words():
    with pytest.raises(GeometryError, match="it allows"):
        complete(Prediction(pointmap_world=WORLD), pose_method="similarity")
    with pytest.raises(GeometryError, match="neither pointmaps"):
        complete(Prediction())


def test_a_focal_length_that_no_lens_has_is_not_believed(caplog):
    squeezed = PLACE.local * torch.tensor([1e5, 1e5, 1.0])
    done = complete_with_info(Prediction(pointmap_world=squeezed, pointmap_camera=squeezed))
    assert "no plausible focal length" in caplog.text
    assert 0.5 * WIDTH < done.info["focal_px"][0] < 2 * WIDTH
