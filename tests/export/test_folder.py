import dataclasses
import json

import numpy as np
import pytest
import torch
import trimesh

from distill3d.data.placement import Placement
from distill3d.errors import ConfigError, OutputError
from distill3d.export import export_reconstruction
from distill3d.export.cameras import camera_records
from tests.export.synthetic import room_reconstruction

HALVED = Placement(source=(40, 60), resized=(20, 30), offset=(0, 0), canvas=(20, 30))
"""The photo is twice as large as the canvas."""


@pytest.fixture(scope="module")
def room():
    return room_reconstruction(2, 20, 30)


def test_a_folder_holds_every_format_and_info_lists_them(room, tmp_path):
    files = export_reconstruction(room, tmp_path / "new" / "out", max_points=200)
    assert set(files) == {"ply", "glb", "depth", "cameras", "info"}
    assert all(path.exists() for path in files.values())
    info = json.loads(files["info"].read_text())
    assert info["num_points_written"] == 200
    assert info["num_points_kept"] == 1200
    assert info["views"] == list(room.names)
    assert info["reconstruction"] == {"scene": "synthetic room"}
    assert info["files"]["glb"] == "points.glb"
    assert len(trimesh.load(files["ply"]).vertices) == 200


def test_only_the_chosen_formats_are_written(room, tmp_path):
    files = export_reconstruction(room, tmp_path, formats=["ply", "npz"])
    assert set(files) == {"ply", "depth"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth", "points.ply"]


def test_an_unknown_format_is_named_with_those_that_exist(room, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown formats \['obj'\]; known are \['ply', 'glb'"):
        export_reconstruction(room, tmp_path, formats=["ply", "obj"])


def test_an_empty_cloud_writes_nothing(room, tmp_path):
    with pytest.raises(OutputError, match="no point to write"):
        export_reconstruction(dataclasses.replace(room, keep=torch.zeros_like(room.keep)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_cameras_project_their_points_onto_their_own_pixels(room, tmp_path):
    files = export_reconstruction(room, tmp_path, formats=["cameras"], placements=[HALVED, HALVED])
    record = json.loads(files["cameras"].read_text())
    assert "integer pixel centres" in record["conventions"]["pixels"]
    for index, camera in enumerate(record["cameras"]):
        point = np.append(room.prediction.pointmap_world[0, index, 7, 11].numpy(), 1)
        local = (np.linalg.inv(camera["world_from_camera"]) @ point)[:3]
        pixel = np.array(camera["canvas"]["intrinsics"]) @ local
        np.testing.assert_allclose(pixel[:2] / pixel[2], [11, 7], atol=1e-3)
        source = np.array(camera["source"]["intrinsics"]) @ local
        np.testing.assert_allclose(source[:2] / source[2], [22.5, 14.5], atol=1e-3)
        assert (camera["source"]["height"], camera["source"]["width"]) == (40, 60)


def test_placements_must_be_one_per_view(room):
    with pytest.raises(OutputError, match="1 placements for 2 views"):
        camera_records(room, [HALVED])


def test_a_folder_that_is_a_file_is_an_error_in_words(room, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken"):
        export_reconstruction(room, tmp_path / "taken" / "out")
