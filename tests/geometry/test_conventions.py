import numpy as np
import pytest
import torch

from distill3d.geometry.cameras import camera_rays, crop_intrinsics, resize_intrinsics
from distill3d.geometry.conventions import (
    intrinsics_from_ndc,
    intrinsics_from_normalised,
    opencv_pose,
    pinhole_from_rays,
    pose_from_pytorch3d,
)
from distill3d.geometry.poses import rotation_from_quaternion


@pytest.fixture
def golden(fixtures):
    def load(name):
        with np.load(fixtures / "data_formats" / f"{name}.npz") as archive:
            arrays = {key: archive[key] for key in archive.files}
        return {key: torch.from_numpy(a) if a.dtype == np.float64 else a for key, a in arrays.items()}

    return load


def close(a, b, atol=1e-9):
    return torch.allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("axes", "looks", "up"),
    [("opengl", (0, 0, -1), (0, 1, 0)), ("ned", (1, 0, 0), (0, 0, -1)), ("pytorch3d", (0, 0, 1), (0, 1, 0))],
)
def test_the_camera_goes_on_looking_where_it_looked(axes, looks, up):
    pose = opencv_pose(torch.eye(4, dtype=torch.float64), axes)
    assert pose[:3, 2].tolist() == list(looks)
    assert (-pose[:3, 1]).tolist() == list(up)
    assert float(torch.linalg.det(pose[:3, :3])) == 1


def test_a_pytorch3d_camera_is_the_recorded_one(golden):
    case = golden("co3d_camera")
    assert close(pose_from_pytorch3d(case["R"], case["T"]), case["expected_c2w"])
    focal, principal = case["focal_ndc_isotropic"], case["principal_ndc_isotropic"]
    size = tuple(case["image_hw"].tolist())
    assert close(intrinsics_from_ndc(focal, principal, size, isotropic=True), case["expected_K"])
    # The same camera in the other units: each side spans [-1, 1].
    stretch = torch.tensor([min(size) / size[1], min(size) / size[0]], dtype=torch.float64)
    bounds = intrinsics_from_ndc(focal * stretch, principal * stretch, size, isotropic=False)
    assert close(bounds, case["expected_K"])


def test_a_tartanair_pose_is_the_recorded_one(golden):
    case = golden("tartanair")
    numbers = case["pose_lines_tx_ty_tz_qx_qy_qz_qw"]
    pose = torch.eye(4, dtype=torch.float64).repeat(len(numbers), 1, 1)
    pose[:, :3, :3] = rotation_from_quaternion(numbers[:, [6, 3, 4, 5]])
    pose[:, :3, 3] = numbers[:, :3]
    assert close(opencv_pose(pose, "ned"), case["expected_c2w_ned_world"])


def test_normalised_intrinsics_are_measured_from_the_corner(golden):
    case = golden("realestate10k")
    fx, fy, cx, cy = map(float, bytes(case["camera_txt"]).decode().splitlines()[1].split()[1:5])
    normalised = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    width, height = case["image_wh"].tolist()
    assert close(intrinsics_from_normalised(normalised, (height, width)), case["expected_K"])


def test_intrinsics_follow_pictures_as_recorded(golden):
    case = golden("pixel_centre_rule")
    assert close(resize_intrinsics(case["K"], (480, 640), (240, 320)), case["half_size_K"])
    assert close(resize_intrinsics(case["K"], (480, 640), (288, 512)), case["anisotropic_512x288_K"])
    assert close(crop_intrinsics(case["K"], 24, 40), case["cropped_40_24_K"])


@pytest.mark.parametrize("kind", ["standard", "tilted"])
def test_a_tilted_image_plane_is_a_turned_pinhole(golden, kind):
    case = golden("hypersim_synthetic")
    height, width = case["image_hw"].tolist()
    uv_from_pixel = torch.tensor(
        [[2 / width, 0, 1 / width - 1], [0, -2 / height, 1 - 1 / height], [0, 0, 1]], dtype=torch.float64
    )
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    camera_from_pixel = flip @ case[f"{kind}_M_cam_from_uv"] @ uv_from_pixel
    intrinsics, pinhole_from_camera = pinhole_from_rays(camera_from_pixel)
    assert close(intrinsics, case[f"{kind}_K"], 1e-8)
    assert close(pinhole_from_camera, case[f"{kind}_R_tilt"])
    rays = camera_rays(intrinsics, height, width) @ pinhole_from_camera
    pixels = torch.tensor([[x, y, 1.0] for y in range(height) for x in range(width)], dtype=torch.float64)
    direct = pixels @ camera_from_pixel.T
    cosine = torch.nn.functional.cosine_similarity(rays.reshape(-1, 3), direct, dim=-1)
    assert close(cosine, torch.ones_like(cosine), 1e-12)
