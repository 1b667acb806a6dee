"""What single data sets have of their own, beside the geometry that test_layouts asks of all."""

import gzip
import json
import shutil

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from distill3d.data import datasets
from distill3d.data.datasets import ScanOptions
from distill3d.data.datasets.co3d import stream_list
from distill3d.data.datasets.scannet1500 import read_pairs
from distill3d.data.datasets.sevenscenes import infrared_pose
from distill3d.data.frames import read_depth, read_picture
from distill3d.errors import DataError
from tests.fixtures.layouts import write_layout


def rows_of(name, root, mode="full"):
    skipped = []
    rows = list(datasets.get(name).scan(root, ScanOptions(mode=mode), on_skip=skipped.append))
    return rows, skipped


def test_7scenes_gives_back_the_pose_in_the_file_and_prefers_depth_registered_beforehand(tmp_path):
    write_layout("sevenscenes", tmp_path)
    rows, _ = rows_of("sevenscenes", tmp_path)
    folder = tmp_path / "chess/seq-01"
    written = np.loadtxt(folder / "frame-000003.pose.txt")
    assert rows[-1].frame == 3
    assert np.allclose(infrared_pose(rows[-1].world_from_camera), written, atol=1e-9)
    shift = np.linalg.norm(np.array(rows[-1].world_from_camera)[:3, 3] - written[:3, 3])
    assert 0.02 < shift < 0.03
    assert {row.split for row in rows} == {"test"}
    registered = np.full((120, 160), 1234, np.uint16)
    cv2.imwrite(str(folder / "frame-000000.depth.proj.png"), registered)
    row = rows_of("sevenscenes", tmp_path)[0][0]
    assert np.allclose(read_depth(row, tmp_path), 1.234)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return write_layout("scannetpp", tmp_path_factory.mktemp("scannetpp")).root


def test_scannetpp_reads_a_film_that_was_not_cut(rooms, tmp_path):
    shutil.copytree(rooms, tmp_path, dirs_exist_ok=True)
    part = tmp_path / "data/bcd2436daf/iphone"
    pictures = [cv2.imread(str(path)) for path in sorted((part / "rgb").iterdir())]
    film = cv2.VideoWriter(str(part / "rgb.mkv"), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for picture in pictures:
        film.write(picture)
    film.release()
    before = [row for row in rows_of("scannetpp", tmp_path)[0] if row.scene == "bcd2436daf/iphone"]
    shutil.rmtree(part / "rgb")
    after = [row for row in rows_of("scannetpp", tmp_path)[0] if row.scene == "bcd2436daf/iphone"]
    assert [row.frame for row in after] == [row.frame for row in before] == [0, 2, 3]
    assert [row.world_from_camera for row in after] == [row.world_from_camera for row in before]
    assert all(row.image.store == "video" for row in after)
    assert np.abs(read_picture(after[1], tmp_path)[..., ::-1].astype(int) - pictures[2]).mean() < 6
    images, _ = rows_of("scannetpp", tmp_path, "images_only")
    assert [row for row in images if row.scene == "bcd2436daf/iphone"]


def test_scannetpp_tells_splits_and_masks(rooms):
    rows, _ = rows_of("scannetpp", rooms)
    assert {row.scene: row.split for row in rows} == {
        "036bce3393/dslr": "train",
        "036bce3393/iphone": "train",
        "0a5c013435/iphone": "train",
        "bcd2436daf/iphone": "val",
    }
    assert all((row.mask is not None) == row.scene.endswith("dslr") for row in rows)


def test_a_list_is_streamed_whatever_the_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("distill3d.data.datasets.co3d._CHUNK", 7)
    entries = [{"path": "größe/frame1.jpg", "size": [1, 2]}, 12345, [], "x" * 50, {"R": [[1.5e-3]]}]
    path = tmp_path / "list.jgz"
    for spaced in (None, 1):
        path.write_bytes(gzip.compress(json.dumps(entries, indent=spaced, ensure_ascii=False).encode()))
        assert list(stream_list(path)) == entries
    text = json.dumps(entries).encode()
    for broken in (gzip.compress(text[:-9]), gzip.compress(b"{}"), gzip.compress(text)[:-20], b"no gzip"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"list\.jgz cannot be read"):
            list(stream_list(path))


def test_numbers_at_the_end_of_a_chunk_stay_whole(tmp_path, monkeypatch):
    path = tmp_path / "list.jgz"
    path.write_bytes(gzip.compress(b"[1234567890, 12, 345]"))
    for chunk in range(1, 25):
        monkeypatch.setattr("distill3d.data.datasets.co3d._CHUNK", chunk)
        assert list(stream_list(path)) == [1234567890, 12, 345]


def test_co3d_tells_splits_and_refuses_a_unit_it_does_not_know(tmp_path):
    write_layout("co3d", tmp_path)
    rows, _ = rows_of("co3d", tmp_path)
    assert {(row.scene, row.split) for row in rows} == {
        ("teddybear/110_13051_23361", "test"),
        ("teddybear/9_2_3", "train"),
    }
    annotations = tmp_path / "teddybear/frame_annotations.jgz"
    frames = json.loads(gzip.decompress(annotations.read_bytes()))
    frames[0]["viewpoint"]["intrinsics_format"] = "screen"
    frames[1]["image"] = None
    annotations.write_bytes(gzip.compress(json.dumps(frames).encode()))
    rows, skipped = rows_of("co3d", tmp_path)
    assert len(rows) == 10
    assert "'screen', expected ndc_isotropic" in skipped[0].reason
    assert skipped[1].path == "an entry of frame_annotations.jgz"


def test_a_shard_that_was_cut_short_gives_the_photos_before_the_cut(tmp_path):
    write_layout("sa1b", tmp_path)
    shard = tmp_path / "sa_000000.tar"
    (last,) = [row for row in rows_of("sa1b", tmp_path)[0] if row.frame == 2]  # it lies last
    shard.write_bytes(shard.read_bytes()[: last.image.offset + 100])
    rows, skipped = rows_of("sa1b", tmp_path)
    assert [row.frame for row in rows] == [1, 10]
    assert "cut short or damaged after 2 photos" in skipped[0].reason


def test_hypersim_takes_previews_and_leaves_out_what_is_not_released(tmp_path):
    pytest.importorskip("h5py")
    write_layout("hypersim", tmp_path)
    splits = tmp_path / "metadata_images_split_scene_v1.csv"
    splits.write_text(
        splits.read_text().replace("ai_001_001,cam_00,3,True,,train", "ai_001_001,cam_00,3,False,people,")
    )
    shutil.rmtree(tmp_path / "ai_001_010/images/scene_cam_00_final_hdf5")
    rows, skipped = rows_of("hypersim", tmp_path)
    assert [(row.scene, row.frame, row.split) for row in rows] == [
        *(("ai_001_001/cam_00", frame, "train") for frame in (0, 1)),
        *(("ai_001_010/cam_00", frame, "test") for frame in (0, 1, 3)),
    ]
    assert "no part of the public release" in skipped[0].reason
    assert rows[-1].image.path.endswith("frame.0003.tonemap.jpg")
    (tmp_path / "metadata_camera_parameters.csv").unlink()
    with pytest.raises(DataError, match=r"lacks metadata_camera_parameters\.csv"):
        rows_of("hypersim", tmp_path)


def test_the_skew_of_a_tilted_scene_of_hypersim_is_kept(tmp_path):
    pytest.importorskip("h5py")
    write_layout("hypersim", tmp_path)
    skew = {row.scene: row.intrinsics[0][1] for row in rows_of("hypersim", tmp_path)[0]}
    assert skew == {"ai_001_001/cam_00": pytest.approx(0, abs=1e-9), "ai_001_010/cam_00": pytest.approx(0.4)}


def test_sintel_takes_the_clean_rendering_where_the_final_one_is_absent(tmp_path):
    write_layout("sintel", tmp_path)
    shutil.rmtree(tmp_path / "training/final")
    rows, _ = rows_of("sintel", tmp_path)
    assert [row.image.path for row in rows] == [f"training/clean/alley_2/frame_{index:04d}.png" for index in (1, 2, 3)]


def test_clips_without_frames_are_told(tmp_path):
    write_layout("re10k", tmp_path)
    shutil.rmtree(tmp_path / "RealEstate10K/test/000c3ab189999a83")
    (tmp_path / "RealEstate10K/test/0000cc6d8b108390/10000000.jpg").unlink()
    second, first = datasets.get("re10k").find(tmp_path)
    assert first.name == "0000cc6d8b108390.txt"
    skipped = []
    rows = list(datasets.get("re10k").read(first, tmp_path, ScanOptions(), skipped.append))
    assert [row.frame for row in rows] == [0, 2, 3, 4]
    assert "has no frame 10000000.jpg" in skipped[0].reason
    with pytest.raises(DataError, match="no frames beside it"):
        list(datasets.get("re10k").read(second, tmp_path, ScanOptions(), skipped.append))


def test_pairs_of_scannet_connect_the_frames_of_the_manifest(tmp_path):
    write_layout("scannet1500", tmp_path)
    poses = {(row.scene, row.frame): np.array(row.world_from_camera) for row in rows_of("scannet1500", tmp_path)[0]}
    for pair in read_pairs(tmp_path / "test.npz"):
        first, second = (poses[pair.scene, frame] for frame in pair.frames)
        assert np.allclose(np.linalg.inv(second) @ first, pair.view1_from_view0, atol=1e-6)
    np.savez(tmp_path / "other.npz", poses=np.eye(4))
    with pytest.raises(DataError, match="expected name and rel_pose"):
        read_pairs(tmp_path / "other.npz")


def test_time_stamps_of_arkitscenes_are_in_the_order_of_time(tmp_path):
    write_layout("arkitscenes", tmp_path)
    rows, _ = rows_of("arkitscenes", tmp_path, "images_only")
    stamps = [row.timestamp for row in rows if row.scene == "40753679"]
    assert stamps == sorted(stamps)
    assert stamps[0] < 1000 < stamps[-1]
    assert {row.split for row in rows} == {"train"}


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_arkitscenes_stands_upright_however_the_device_was_held(tmp_path, turns):
    """The same film, taken with the device turned: turned back it is the same pictures, depth and cameras."""
    write_layout("arkitscenes", tmp_path)
    options = ScanOptions(upright=True)
    video = tmp_path / "raw/Training/40753679"
    before = list(datasets.get("arkitscenes").read(video, tmp_path, options, lambda skipped: None))
    seen = [(read_picture(row, tmp_path), read_depth(row, tmp_path)) for row in before]
    for kind in ("vga_wide", "lowres_depth", "confidence"):
        for path in (video / kind).glob("*.png"):
            cv2.imwrite(str(path), np.ascontiguousarray(np.rot90(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), turns)))
    for path in (video / "vga_wide_intrinsics").iterdir():
        width, height, fx, fy, cx, cy = map(float, path.read_text().split())
        for _ in range(turns):
            width, height, fx, fy, cx, cy = height, width, fy, fx, cy, width - 1 - cx
        path.write_text(f"{width:.0f} {height:.0f} {fx} {fy} {cx} {cy}")
    lines = [np.array(line.split(), float) for line in (video / "lowres_wide.traj").read_text().splitlines()]
    held = Rotation.from_euler("z", -90 * turns, degrees=True)
    turned = [
        [time, *(held * Rotation.from_rotvec(rest[:3])).as_rotvec(), *held.apply(rest[3:])] for time, *rest in lines
    ]
    (video / "lowres_wide.traj").write_text("\n".join(" ".join(f"{value:.12g}" for value in line) for line in turned))
    after = list(datasets.get("arkitscenes").read(video, tmp_path, options, lambda skipped: None))
    assert len(after) == len(before) > 0
    for (picture, depth), one, other in zip(seen, before, after, strict=True):
        assert np.array_equal(read_picture(other, tmp_path), picture)
        assert np.array_equal(read_depth(other, tmp_path), depth)
        assert (other.height, other.width) == (one.height, one.width)
        np.testing.assert_allclose(other.intrinsics, one.intrinsics, atol=1e-9)
        np.testing.assert_allclose(other.world_from_camera, one.world_from_camera, atol=1e-6)
    bare = ScanOptions(mode="images_only", upright=True)
    rows = {row.frame: row for row in datasets.get("arkitscenes").read(video, tmp_path, bare, lambda skipped: None)}
    for (picture, _), one in zip(seen, before, strict=True):
        assert rows[one.frame].intrinsics is None
        assert np.array_equal(read_picture(rows[one.frame], tmp_path), picture)


def test_depth_of_arkitscenes_that_the_device_was_unsure_of_is_left_out(tmp_path):
    write_layout("arkitscenes", tmp_path)
    video = tmp_path / "raw/Training/40753679"
    path = next((video / "confidence").glob("*_999.800.png"))
    confidence = np.full((12, 16), 1, np.uint8)
    confidence[:6] = 0
    cv2.imwrite(str(path), confidence)
    row = next(datasets.get("arkitscenes").read(video, tmp_path, ScanOptions(), lambda skipped: None))
    depth = read_depth(row, tmp_path)
    assert not depth[:6].any()
    assert (depth[6:] > 0).mean() > 0.5


def test_held_out_sequences_of_co3d_stay_held_out_where_the_lists_pass_over_a_frame(tmp_path):
    write_layout("co3d", tmp_path)
    lists = tmp_path / "teddybear/set_lists"
    (lists / "set_lists_fewview_train.json").write_text(json.dumps({"train": [["9_2_3", 3, "x"]]}))
    (lists / "set_lists_fewview_test.json").write_text(json.dumps({"train": [["110_13051_23361", 13, "x"]]}))
    rows, _ = rows_of("co3d", tmp_path)
    splits = {(row.scene.split("/")[1], row.split) for row in rows}
    assert splits == {("110_13051_23361", "test"), ("9_2_3", "train")}


def test_the_size_of_a_photo_in_a_shard_needs_no_more_than_its_header(tmp_path, monkeypatch):
    write_layout("sa1b", tmp_path)
    whole, _ = rows_of("sa1b", tmp_path)
    monkeypatch.setattr("distill3d.data.datasets.sa1b._HEADER", 3)  # too few bytes: all of the photo is read
    assert rows_of("sa1b", tmp_path)[0] == whole


def test_sequences_of_co3d_that_were_not_downloaded_are_told_in_a_line_each(tmp_path):
    write_layout("co3d", tmp_path)
    shutil.rmtree(tmp_path / "teddybear/9_2_3")
    shutil.rmtree(tmp_path / "teddybear/110_13051_23361/depths")
    rows, skipped = rows_of("co3d", tmp_path)
    assert not rows
    assert {entry.path for entry in skipped} == {"teddybear/9_2_3/images", "teddybear/110_13051_23361/depths"}
    assert all("6 frames are left out" in entry.reason for entry in skipped)


def test_habitat_tells_the_splits_of_the_lists_as_they_are_now(tmp_path):
    write_layout("habitat", tmp_path)
    assert {row.scene: row.split for row in rows_of("habitat", tmp_path)[0]} == {
        "gibson/Adrian/00000012": "val",
        "hm3d/00800-TEEsavR23oF/00000000": "train",
    }
    (tmp_path / "Habitat_1000_scenes_val.txt").unlink()
    assert {row.split for row in rows_of("habitat", tmp_path)[0]} == {"train", ""}


def test_worlds_of_tartanair_are_found_however_each_was_unpacked(tmp_path):
    write_layout("tartanair", tmp_path)
    shutil.copytree(tmp_path / "abandonedfactory/abandonedfactory", tmp_path / "hospital")
    scenes = {row.scene for row in rows_of("tartanair", tmp_path)[0]}
    assert scenes == {"abandonedfactory/Easy/P000", "hospital/Easy/P000"}
