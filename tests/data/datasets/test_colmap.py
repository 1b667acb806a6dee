import numpy as np

from distill3d.data.frames import read_depth
from distill3d.data.sources import find_source
from tests.data.colmap_files import write_binary, write_text
from tests.data.pictures import save_picture


def project(root, write=write_text):
    write(root / "sparse/0")
    save_picture(root / "images/frame9.png", 30, 40, seed=1)
    save_picture(root / "images/frame10.png", 48, 64, seed=2)
    return root


def test_a_project_is_found_and_said(tmp_path):
    source = find_source(project(tmp_path / "yard"))
    assert source.dataset == "colmap"
    assert source.describe() == f"1 COLMAP model in {tmp_path / 'yard'}"


def test_registered_images_become_rows_with_their_cameras(tmp_path):
    for write in (write_text, write_binary):
        rows = list(find_source(project(tmp_path / write.__name__, write)).scan())
        assert [(row.scene, row.frame, row.image.path) for row in rows] == [
            (write.__name__, 0, "images/frame9.png"),
            (write.__name__, 1, "images/frame10.png"),
        ]
        assert [(row.width, row.height) for row in rows] == [(40, 30), (64, 48)]
        assert rows[0].distortion is None
        assert rows[1].distortion.model == "SIMPLE_RADIAL"
        assert rows[0].world_from_camera[2][3] == 1
        assert {row.scale for row in rows} == {"sfm"}


def test_an_image_that_is_not_there_is_skipped(tmp_path):
    project(tmp_path)
    (tmp_path / "images/frame9.png").unlink()
    skipped = []
    assert [row.frame for row in find_source(tmp_path).scan(on_skip=skipped.append)] == [1]
    assert skipped[0].path == "images/frame9.png"
    assert "sparse/0 names frame9.png" in skipped[0].reason


def test_two_models_are_two_scenes(tmp_path):
    project(tmp_path / "yard")
    write_binary(tmp_path / "yard/sparse/1")
    assert {row.scene for row in find_source(tmp_path).scan()} == {"yard/0", "yard/1"}


def test_a_model_may_be_given_itself_or_lie_beside_its_photos(tmp_path):
    project(tmp_path / "yard")
    write_text(tmp_path / "flat")
    save_picture(tmp_path / "flat/frame9.png", 30, 40)
    assert [row.image.path for row in find_source(tmp_path / "flat").scan(on_skip=lambda _: None)] == ["frame9.png"]


def test_dense_depth_of_an_undistorted_project_is_read(tmp_path):
    project(tmp_path)
    depth = np.arange(12, dtype="<f4").reshape(3, 4)
    path = tmp_path / "stereo/depth_maps/frame9.png.geometric.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"4&3&1&" + depth.tobytes())
    first, second = find_source(tmp_path).scan()
    assert np.array_equal(read_depth(first, tmp_path), depth)
    assert second.depth is None
