import math

import pytest
import torch
from safetensors.torch import load_file

from distill3d.geometry.cameras import project_points, unproject_depth
from distill3d.geometry.pose_encoding import decode_cameras, encode_cameras
from distill3d.geometry.poses import invert_pose, pose_from_rt, transform_points

SIZE = (56, 70)


@pytest.fixture(scope="module")
def golden(fixtures):
    return load_file(fixtures / "vggt" / "golden.safetensors")


def test_poses_and_intrinsics_agree_with_the_recording(golden):
    world_from_camera, intrinsics = decode_cameras(golden["decode.pose_enc"], *SIZE)
    camera_from_world = invert_pose(world_from_camera)
    torch.testing.assert_close(camera_from_world[..., :3, :], golden["decode.extrinsics"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(intrinsics, golden["decode.intrinsics"], rtol=1e-5, atol=1e-5)


def test_encoding_again_gives_the_recorded_numbers(golden):
    again = encode_cameras(*decode_cameras(golden["decode.pose_enc"], *SIZE), *SIZE)
    torch.testing.assert_close(again, golden["decode.pose_enc_reencoded"], rtol=1e-5, atol=1e-5)
    assert (again[..., 6] >= 0).all()


def test_recorded_depth_lands_on_the_recorded_points(golden):
    """Their pixel grid is ours: integer centres, with the principal point as it is decoded."""
    depth, extrinsics = golden["unproject.depth"][..., 0], golden["unproject.extrinsics"]
    points_camera = unproject_depth(depth, golden["unproject.intrinsics"])
    world_from_camera = invert_pose(pose_from_rt(extrinsics[..., :3], extrinsics[..., 3]))
    points = transform_points(world_from_camera, points_camera)
    recorded = golden["unproject.world_points"]
    assert ((points - recorded).norm(dim=-1) / recorded.norm(dim=-1))[depth > 1e-8].max() < 1e-5


def test_a_point_on_the_axis_falls_on_half_the_size():
    encoding = torch.tensor([0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 1.0, 0.8, 1.0])
    _, intrinsics = decode_cameras(encoding, *SIZE)
    pixel, _ = project_points(torch.tensor([[[0.0, 0.0, 2.0]]]), intrinsics)
    assert pixel.flatten().tolist() == [35.0, 28.0]
    border, _ = project_points(torch.tensor([[[math.tan(0.5), math.tan(0.4), 1.0]]]), intrinsics)
    torch.testing.assert_close(border.flatten(), torch.tensor([70.0, 56.0]))


def test_an_opening_of_nothing_keeps_finite_cameras_and_gradients():
    encoding = torch.tensor([[0.0, 0, 0, 0, 0, 0, 1, 0, 0], [0.0, 0, 0, 0, 0, 0, 1, 0, 1]], requires_grad=True)
    pose, intrinsics = decode_cameras(encoding, *SIZE)
    assert intrinsics.isfinite().all()
    assert (intrinsics.diagonal(dim1=-2, dim2=-1) > 0).all()
    (pose.sum() + intrinsics.sum()).backward()
    assert encoding.grad.isfinite().all()
