import logging
import os
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.data import walk
from distill3d.data.datasets import ScanOptions
from distill3d.data.datasets.annotated import write_annotated_scene
from distill3d.data.images import ImageFit
from distill3d.data.sources import find_source, load_source
from distill3d.errors import DataError
from tests.data.films import save_film
from tests.data.pictures import save_picture

SMALL = ImageFit(long_side=56, multiple=14)


def photos(folder, count=3):
    for number in range(1, count + 1):
        save_picture(folder / f"{number}.jpg", seed=number)
    return folder


def test_a_folder_of_photos(tmp_path):
    source = find_source(photos(tmp_path / "yard", 12))
    assert (source.dataset, len(source.parts)) == ("photos", 1)
    assert source.describe() == f"12 photos of 1 scene in {tmp_path / 'yard'}"
    rows = list(source.scan())
    assert [row.image.path for row in rows] == [f"{number}.jpg" for number in range(1, 13)]
    assert {row.scene for row in rows} == {"yard"}


def test_a_folder_of_scene_folders(tmp_path):
    for name in ("room10", "room2/images", "hall/rgb"):
        photos(tmp_path / name, 2)
    save_picture(tmp_path / "hall/depth/1.png")
    save_picture(tmp_path / "hall/preview.jpg")
    rows = list(find_source(tmp_path).scan())
    assert [(row.scene, row.image.path) for row in rows] == [
        ("hall", "hall/rgb/1.jpg"),
        ("hall", "hall/rgb/2.jpg"),
        ("room2", "room2/images/1.jpg"),
        ("room2", "room2/images/2.jpg"),
        ("room10", "room10/1.jpg"),
        ("room10", "room10/2.jpg"),
    ]


def test_a_scene_with_its_photos_in_images_is_one_scene(tmp_path):
    photos(tmp_path / "buddha/images", 4)
    photos(tmp_path / "buddha/masks", 4)
    (tmp_path / "buddha/README.md").write_text("about")
    rows = list(find_source(tmp_path / "buddha").scan())
    assert (rows[0].scene, rows[0].image.path) == ("buddha", "images/1.jpg")
    assert len(rows) == 4


def test_photos_beside_scenes_are_a_scene_of_their_own(tmp_path):
    photos(tmp_path / "flat", 2)
    photos(tmp_path / "flat/kitchen", 2)
    assert [row.scene for row in find_source(tmp_path / "flat").scan()] == ["flat", "flat", "kitchen", "kitchen"]
    photos(tmp_path / "flat/flat", 2)
    assert {row.scene for row in find_source(tmp_path / "flat").scan()} == {".", "flat", "kitchen"}


def test_a_folder_called_photos_beside_scenes_goes_by_its_own_name(tmp_path):
    for name in ("data/buddha/images", "data/photos"):
        photos(tmp_path / name, 2)
    assert {row.scene for row in find_source(tmp_path / "data").scan()} == {"buddha", "photos"}
    assert {row.scene for row in find_source(tmp_path / "data/buddha").scan()} == {"buddha"}


def test_a_tree_is_walked_once_to_find_out_what_it_is(tmp_path, monkeypatch):
    photos(tmp_path / "yard", 2)
    looked = Counter()
    scandir = os.scandir

    def counting(folder):
        looked["walk" if sys._getframe(1).f_code.co_name == "_walk" else "other"] += 1
        return scandir(folder)

    monkeypatch.setattr(walk.os, "scandir", counting)
    find_source(tmp_path)
    assert looked["walk"] == 2  # the folder, and the one in it


def test_maps_beside_photos_are_no_photos_but_told(tmp_path):
    photos(tmp_path / "desk", 2)
    save_picture(tmp_path / "desk/1_masked.jpg")
    save_picture(tmp_path / "desk/mask_of_venice.jpg", seed=8)  # in colour: a photo of one
    for name in ("depth_1", "1_disparity", "1-mask"):
        Image.fromarray(np.full((24, 32), 900, np.uint16)).save(tmp_path / f"desk/{name}.png")
    skipped = []
    rows = list(find_source(tmp_path / "desk").scan(on_skip=skipped.append))
    assert [row.image.path for row in rows] == ["1.jpg", "2.jpg", "mask_of_venice.jpg"]
    assert sorted(entry.path for entry in skipped) == ["1-mask.png", "1_disparity.png", "1_masked.jpg", "depth_1.png"]
    assert all("it is no photo" in entry.reason for entry in skipped)
    assert load_source(tmp_path / "desk", SMALL).names == ("1.jpg", "2.jpg", "mask_of_venice.jpg")


def test_hidden_files_and_resource_forks_are_passed_over(tmp_path):
    photos(tmp_path, 2)
    (tmp_path / "._1.jpg").write_bytes(b"fork")
    photos(tmp_path / ".thumbs", 2)
    photos(tmp_path / "__MACOSX", 2)
    assert len(list(find_source(tmp_path).scan())) == 2


def test_links_to_folders_are_followed_once(tmp_path):
    photos(tmp_path / "disk/yard", 2)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/yard").symlink_to(tmp_path / "disk/yard")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    assert len(list(find_source(tmp_path / "data").scan())) == 2


def test_a_video_and_a_folder_of_videos(tmp_path):
    save_film(tmp_path / "b10.avi", frames=11, fps=10)
    save_film(tmp_path / "b9.avi", frames=6, fps=10)
    source = find_source(tmp_path)
    assert (source.dataset, len(source.parts)) == ("video", 2)
    rows = list(source.scan(ScanOptions(rate=2)))
    assert [(row.scene, row.image.offset) for row in rows] == [
        *(("b9.avi", number) for number in (0, 5)),
        *(("b10.avi", number) for number in (0, 5, 10)),
    ]
    single = find_source(tmp_path / "b9.avi")
    assert single.root == tmp_path
    assert [row.image.path for row in single.scan()] == ["b9.avi"] * 2


def test_annotated_scenes_win_over_photos(tmp_path):
    write_annotated_scene(tmp_path / "room", torch.rand(2, 3, 8, 8))
    photos(tmp_path / "others")
    source = find_source(tmp_path)
    assert (source.dataset, len(source.parts)) == ("annotated", 1)
    assert find_source(tmp_path / "room/scene.json").dataset == "annotated"
    assert source.describe() == f"1 scene with annotations in {tmp_path}"


def test_what_was_found_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO, "distill3d")
    find_source(photos(tmp_path, 1))
    assert f"found 1 photo of 1 scene in {tmp_path}" in caplog.text


def test_a_path_with_nothing_to_use_says_what_is_there(tmp_path):
    with pytest.raises(DataError, match=r"does not exist; expected a folder of photos"):
        find_source(tmp_path / "none")
    with pytest.raises(DataError, match=r"is empty; expected a folder of photos .* or a video"):
        find_source(tmp_path)
    for name in ("a.txt", "b.txt", "c.pdf"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"only 3 other files \(2 x .txt, 1 x .pdf\)"):
        find_source(tmp_path)
    with pytest.raises(DataError, match=r"a.txt is neither a photo nor a video nor a table"):
        find_source(tmp_path / "a.txt")


def test_a_folder_that_may_not_be_read_is_not_called_empty(tmp_path, monkeypatch):
    monkeypatch.setattr("distill3d.data.sources.os.access", lambda path, mode: False)
    with pytest.raises(DataError, match=r"may not be read: permission denied"):
        find_source(tmp_path)


def test_photos_of_a_place_are_loaded_in_natural_order(tmp_path):
    loaded = load_source(photos(tmp_path, 12), SMALL)
    assert loaded.names == tuple(f"{number}.jpg" for number in range(1, 13))
    assert loaded.views.images.shape == (1, 12, 3, 42, 56)


def test_too_many_photos_are_thinned_evenly(tmp_path):
    assert load_source(photos(tmp_path, 11), SMALL, max_views=3).names == ("1.jpg", "6.jpg", "11.jpg")


def test_frames_of_a_video_are_loaded(tmp_path):
    path = save_film(tmp_path / "walk.mp4", frames=21, fps=10)
    loaded = load_source(path, SMALL, rate=1.0)
    assert loaded.names == ("frame_000000", "frame_000010", "frame_000020")
    levels = loaded.views.images[0, :, :, :, 28:].mean(dim=(1, 2, 3)) * 255 / 6
    assert torch.allclose(levels, torch.tensor([0.0, 10.0, 20.0]), atol=0.7)
    assert loaded.views.valid.shape == (1, 3, 42, 56)
    assert len(load_source(path, SMALL, rate=10, max_views=4).names) == 4


def test_an_annotated_scene_is_loaded_as_photos(tmp_path):
    write_annotated_scene(tmp_path, torch.rand(3, 3, 12, 16))
    assert load_source(tmp_path, SMALL).views.images.shape == (1, 3, 3, 42, 56)


def test_several_places_at_once_are_refused(tmp_path):
    for name in "ab":
        photos(tmp_path / name)
    with pytest.raises(DataError, match=r"6 photos of 2 scenes .*expected the photos of one place"):
        load_source(tmp_path, SMALL)


@pytest.mark.parametrize("name", ["1.jpg", "."])
def test_one_photo_is_too_few_unless_one_is_enough(tmp_path, name):
    photos(tmp_path, 1)
    with pytest.raises(DataError, match="Found only 1 photo, expected at least 2"):
        load_source(tmp_path / name, SMALL)
    assert load_source(tmp_path / name, SMALL, at_least=1).names == ("1.jpg",)


def test_a_video_of_one_frame_is_too_short(tmp_path):
    with pytest.raises(DataError, match=r"gives 1 frame, expected at least 2. Film for longer"):
        load_source(save_film(tmp_path / "a.avi", frames=1), SMALL)


@pytest.mark.parametrize("name", ["buddha", "charuco_desk"])
def test_real_scenes_are_found(shared_data, name):
    source = find_source(shared_data / name)
    rows = list(source.scan())
    assert {row.scene for row in rows} == {name}
    assert {(row.width, row.height) for row in rows} == {(640, 360)}
    names = [int(row.image.path.split("/")[1].split(".")[0]) for row in rows]
    assert names == sorted(names)
    assert source.describe().startswith(f"{len(names)} photos of 1 scene")


def test_an_annotated_scene_brings_the_cameras_of_the_photos_that_could_be_read(tmp_path):
    intrinsics = torch.eye(3).repeat(4, 1, 1)
    intrinsics[:, 0, 0] = torch.tensor([10.0, 20.0, 30.0, 40.0])
    poses = torch.eye(4).repeat(4, 1, 1)
    poses[:, 0, 3] = torch.tensor([5.0, 6.0, 7.0, 8.0])
    write_annotated_scene(tmp_path, torch.rand(4, 3, 16, 16), intrinsics=intrinsics, world_from_camera=poses)
    (tmp_path / "images" / "000001.png").write_bytes(b"this is no photo")
    (tmp_path / "images" / "000003.png").unlink()
    loaded = load_source(tmp_path, ImageFit(long_side=28))
    assert [skipped.path.rsplit("/", 1)[1] for skipped in loaded.skipped] == ["000003.png", "000001.png"]
    assert loaded.views.intrinsics is not None
    assert loaded.views.intrinsics[0, :, 0, 0].tolist() == [17.5, 52.5]  # in pixels of the canvas
    assert loaded.views.world_from_camera is not None
    assert loaded.views.world_from_camera[0, :, 0, 3].tolist() == [0, 2]  # in the frame of view 0
    assert loaded.views.depth is None
