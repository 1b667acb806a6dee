"""Every encoding of the public data sets gives what was recorded for it, mostly with the original programs."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.data import datasets
from distill3d.data.camera_files import poses_from_quaternions, read_mvsnet_camera, read_numbers
from distill3d.data.codecs import decode
from distill3d.data.codecs.special import tone_mapped
from distill3d.data.datasets import ScanOptions, arkitscenes
from distill3d.data.datasets.scannet1500 import read_pairs
from distill3d.data.datasets.sintel import read_cam
from distill3d.data.depth_stack import index_depth_stack
from distill3d.data.frames import read_depth
from distill3d.data.refs import Ref, Span, codec
from distill3d.data.rows import ManifestRow, matrix
from distill3d.errors import DataError
from distill3d.geometry.cameras import turn_camera
from distill3d.geometry.conventions import opencv_pose, pinhole_from_rays
from distill3d.geometry.poses import pose_from_rt


@pytest.fixture
def golden(fixtures):
    def load(name):
        with np.load(fixtures / "data_formats" / f"{name}.npz") as archive:
            return {key: archive[key] for key in archive.files}

    return load


@pytest.fixture
def span(tmp_path):
    """Bytes as a file that codecs read."""

    def write(data, name="file"):
        (tmp_path / name).write_bytes(data.tobytes())
        return Span(tmp_path / name)

    return write


DEPTHS = {
    "co3d": ("co3d_depth_float16_bits", "png", "expected_depth", "float16-png"),
    "blendedmvs": ("mvsnet_cam_and_pfm", "pfm", "expected_depth", "pfm"),
    "megadepth": ("megadepth", "depth_h5", "expected_depth", codec("hdf5", key="depth")),
    "habitat": ("habitat_view", "depth_exr", "expected_depth", "exr"),
    "habitat by OpenCV": ("habitat_view", "depth_exr_by_opencv4", "expected_depth", "exr"),
    "tartanair": ("tartanair", "v1_depth_npy", "expected_depth", "npy"),
    "tartanair 2": ("tartanair", "v2_depth_png", "expected_depth", "float32-png"),
    "kitti": ("kitti_depth_png", "png", "expected_depth", codec("png16", scale=1 / 256)),
    "sevenscenes": ("sevenscenes_depth", "depth_png", "expected_depth", codec("png16", scale=0.001, invalid=65535)),
    "sintel": ("sintel_dpt_cam", "dpt", "expected_depth", "dpt"),
    "eth3d": ("eth3d_raw_depth", "raw", "expected_depth", codec("raw", dtype="<f4", height=6, width=9)),
    "moge": ("moge_eval_depth_png", "png", "expected_depth", "log-png"),
}


@pytest.mark.parametrize("kind", sorted(DEPTHS))
def test_a_depth_map_is_the_recorded_one(golden, span, kind):
    name, stored, expected, spelled = DEPTHS[kind]
    if "hdf5" in spelled:
        pytest.importorskip("h5py")
    case = golden(name)
    depth = decode("DEPTH_CODECS", spelled, span(case[stored]))
    assert depth.dtype == np.float32
    true = np.where(np.isfinite(case[expected]), case[expected], 0)
    np.testing.assert_allclose(depth, true, rtol=3e-7)


def test_an_ordinal_map_is_no_depth(golden, span):
    pytest.importorskip("h5py")
    with pytest.raises(DataError, match="ordinal"):
        decode("DEPTH_CODECS", codec("hdf5", key="depth"), span(golden("megadepth")["ordinal_h5"]))


@pytest.mark.parametrize("kind", ["whole_file_deflate_float32_m", "framed_lz4_uint16_mm", "framed_deflate_float32_m"])
def test_all_three_stacks_of_scannetpp_give_the_same_depth(golden, span, kind):
    case = golden("scannetpp_depth_bin")
    file = span(case[kind], "depth.bin").path
    stack = index_depth_stack(file, file.name)
    assert len(stack) == 3
    for ref, expected in zip(stack, case["expected_depth_mm"], strict=True):
        depth = decode("DEPTH_CODECS", ref.codec, ref.within(file.parent))
        np.testing.assert_allclose(depth, expected / 1000, rtol=0, atol=1e-6)


@pytest.mark.parametrize("words", [29, 31])
def test_a_camera_of_mvsnet_is_the_recorded_one(golden, span, words):
    case = golden("mvsnet_cam_and_pfm")
    pose, intrinsics = read_mvsnet_camera(span(case[f"cam_txt_{words}_words"]).path)
    np.testing.assert_allclose(pose, case["expected_c2w"], atol=1e-9)
    np.testing.assert_allclose(intrinsics, case["expected_K"], atol=1e-9)


def test_a_trajectory_of_arkitscenes_is_the_recorded_one(golden, span):
    case = golden("arkitscenes_pose")
    trajectory = arkitscenes._read_trajectory(span(case["traj_text"]).path)
    np.testing.assert_allclose(trajectory.times, case["timestamps"], atol=1e-8)
    np.testing.assert_allclose(trajectory.world_from_camera, case["expected_c2w"], atol=1e-7)
    intrinsics, size = arkitscenes._read_pincam(span(case["pincam_text"]).path)
    assert size == (480, 640)
    assert intrinsics.tolist() == [[533.069, 0, 320.291], [0, 533.069, 237.914], [0, 0, 1]]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_picture_of_arkitscenes_has_the_recorded_camera(golden, turns):
    case = golden("arkitscenes_pose")
    size = tuple(case["image_hw"].tolist())
    intrinsics, pose = torch.from_numpy(case["K"]), torch.from_numpy(case["expected_c2w"][0])
    turned, turned_pose = turn_camera(intrinsics, pose, size, turns)
    np.testing.assert_allclose(turned, case[f"rot{turns}_K"], atol=1e-12)
    np.testing.assert_allclose(turned_pose, case[f"rot{turns}_c2w"], atol=1e-12)


def test_poses_of_tartanair_and_nrgbd_are_the_recorded_ones(golden, span):
    case = golden("tartanair")
    poses = poses_from_quaternions(case["pose_lines_tx_ty_tz_qx_qy_qz_qw"])
    np.testing.assert_allclose(opencv_pose(poses, "ned"), case["expected_c2w_ned_world"], atol=1e-12)
    case = golden("neural_rgbd_poses")
    poses = torch.from_numpy(read_numbers(span(case["poses_txt"]).path).reshape(-1, 4, 4))
    np.testing.assert_allclose(opencv_pose(poses[0], "opengl"), case["expected_c2w_first"], atol=1e-7)
    assert bool(torch.isnan(poses[1]).all())


def test_a_camera_of_sintel_is_the_recorded_one(golden):
    case = golden("sintel_dpt_cam")
    intrinsics, pose = read_cam(case["cam"].tobytes())
    assert np.array_equal(intrinsics, case["expected_K"])
    np.testing.assert_allclose(np.linalg.inv(pose), case["expected_w2c"], atol=1e-12)
    with pytest.raises(ValueError, match="171 bytes"):
        read_cam(case["cam"].tobytes()[:-1])


def test_pairs_of_scannet_are_the_recorded_ones(golden, span):
    case = golden("scannet1500")
    (pair,) = read_pairs(span(case["test_npz"], "test.npz").path)
    assert (pair.scene, pair.frames) == ("scene0707_00", (15, 585))
    np.testing.assert_allclose(pair.view1_from_view0, case["expected_T_0to1"], atol=1e-6)


def test_photos_of_sa1b_lie_where_recorded(golden, tmp_path):
    case = golden("sa1b_tar")
    (tmp_path / "sa_000123.tar").write_bytes(case["tar"].tobytes())
    rows = list(datasets.get("sa1b").scan(tmp_path, ScanOptions(mode="images_only")))
    assert [row.frame for row in rows] == [1, 2, 10]
    order = np.argsort([int(Path(name).stem.removeprefix("sa_")) for name in case["jpg_names"]])
    assert [row.image.offset for row in rows] == case["jpg_offset"][order].tolist()
    assert [row.image.length for row in rows] == case["jpg_size"][order].tolist()


def test_pictures_and_depth_of_nyuv2_are_the_recorded_ones(golden, span):
    pytest.importorskip("h5py")
    case = golden("nyuv2_mat")
    file = span(case["mat"])
    for index in range(2):
        assert np.array_equal(decode("IMAGE_CODECS", codec("nyuv2", index=index), file), case["expected_rgb"][index])
        for key, expected in (("depths", "expected_depth"), ("rawDepths", "expected_raw_depth")):
            depth = decode("DEPTH_CODECS", codec("hdf5", key=key, index=index, axes="wh"), file)
            assert np.array_equal(depth, case[expected][index])


def test_masks_of_ibims_and_diode_leave_the_recorded_depth(golden, span):
    case = golden("ibims1")
    mask = span(case["mask_invalid_png"], "mask.png")
    kept = decode("MASK_CODECS", codec("all-masks", beside="mask.png"), mask)
    depth = decode("DEPTH_CODECS", codec("png16", scale=50 / 65535, invalid=65535), span(case["depth_png"]))
    np.testing.assert_allclose(np.where(kept, depth, 0), case["expected_depth"], rtol=2e-7)
    case = golden("diode")
    kept = decode("MASK_CODECS", codec("mask-of-depth", of="npy", above=0.5), span(case["depth_mask_npy"]))
    depth = decode("DEPTH_CODECS", "npy", span(case["depth_npy"]))
    assert np.array_equal(np.where(kept, depth, 0), case["expected_depth"])


def hypersim_camera(camera_from_uv, orientation, position, height, width):
    uv_from_pixel = np.array([[2 / width, 0, 1 / width - 1], [0, -2 / height, 1 - 1 / height], [0, 0, 1]])
    rays = torch.from_numpy(np.diag([1.0, -1, -1]) @ camera_from_uv @ uv_from_pixel)
    intrinsics, pinhole_from_camera = pinhole_from_rays(rays)
    pose = opencv_pose(pose_from_rt(torch.from_numpy(orientation), torch.from_numpy(position)), "opengl")
    return intrinsics, pose_from_rt(pose[:3, :3] @ pinhole_from_camera.T, pose[:3, 3])


@pytest.mark.parametrize("kind", ["standard", "tilted"])
def test_distances_of_hypersim_become_the_recorded_depth(golden, tmp_path, kind):
    case = golden("hypersim_synthetic")
    height, width = case["image_hw"].tolist()
    position = case["camera_position_asset_units"] * case["meters_per_asset_unit"]
    intrinsics, pose = hypersim_camera(
        case[f"{kind}_M_cam_from_uv"], case["camera_orientation"], position, height, width
    )
    np.testing.assert_allclose(pose, case[f"{kind}_c2w"], atol=1e-9)
    np.save(tmp_path / "distance.npy", case["distance"].astype(np.float32))
    row = ManifestRow(
        dataset="hypersim",
        scene="ai",
        frame=0,
        image=Ref("frame"),
        width=width,
        height=height,
        intrinsics=matrix(intrinsics.tolist(), 3),
        depth=Ref("distance.npy", "npy"),
        depth_kind="distance",
    )
    depth = read_depth(row, tmp_path)
    np.testing.assert_allclose(depth, case[f"{kind}_depth"], rtol=1e-6)


def test_the_tone_curve_of_hypersim_is_the_recorded_one(golden):
    case = golden("hypersim_synthetic")
    shown = tone_mapped(case["color_hdr"], case["render_entity_id"] != -1)
    assert np.abs(shown / 255 - case["expected_tonemapped"]).max() <= 0.5 / 255 + 1e-9
    assert tone_mapped(np.zeros((2, 2, 3)), np.ones((2, 2), bool)).max() == 0


def test_a_real_frame_of_hypersim_keeps_its_world_points(shared_data):
    path = shared_data.parent / "data_formats/goldens/hypersim_real_crop.npz"
    if not path.is_file():
        pytest.skip(f"no recording at {path}")
    with np.load(path) as case:
        intrinsics, pose = hypersim_camera(
            case["M_cam_from_uv"], case["camera_orientation"], case["camera_position_m"], 768, 1024
        )
        np.testing.assert_allclose(intrinsics, case["expected_K"], atol=1e-6)
        np.testing.assert_allclose(pose, case["expected_c2w"], atol=1e-9)
        column, row = np.meshgrid(case["cols"], case["rows"])
        rays = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(intrinsics.numpy()).T
        depth = case["distance"].astype(np.float64) / np.linalg.norm(rays, axis=-1)
        np.testing.assert_allclose(depth, case["expected_depth"], rtol=1e-9)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        points = rays * case["distance"].astype(np.float64)[..., None] @ pose[:3, :3].numpy().T + pose[:3, 3].numpy()
        np.testing.assert_allclose(points, case["expected_world_points"], atol=1e-9)


def test_a_camera_of_habitat_is_taken_as_it_is(golden, tmp_path):
    case = golden("habitat_view")
    camera = json.loads(case["camera_params_json"].tobytes())
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    (tmp_path / "00000003_1.jpeg").write_bytes(picture.getvalue())
    (tmp_path / "00000003_1_camera_params.json").write_bytes(case["camera_params_json"].tobytes())
    (tmp_path / "00000003_1_depth.exr").write_bytes(case["depth_exr"].tobytes())
    (row,) = datasets.get("habitat").scan(tmp_path)
    assert np.array_equal(row.intrinsics, camera["camera_intrinsics"])
    assert np.array(row.world_from_camera)[:3, 3].tolist() == camera["t_cam2world"]
    assert np.array_equal(read_depth(row, tmp_path), case["expected_depth"])
