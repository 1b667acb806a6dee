import numpy as np
import pytest

from distill3d.data.colmap_model import find_models, read_model
from distill3d.data.rows import Distortion
from distill3d.errors import DataError
from tests.data.colmap_files import write_binary, write_text


@pytest.fixture(params=[write_text, write_binary], ids=["text", "binary"])
def model_folder(request, tmp_path):
    return request.param(tmp_path / "sparse/0")


def test_cameras_get_integer_pixel_centres_and_their_lens(model_folder):
    cameras = read_model(model_folder).cameras
    assert cameras[1].intrinsics == ((50.0, 0.0, 31.5), (0.0, 50.0, 23.5), (0.0, 0.0, 1.0))
    assert cameras[1].distortion == Distortion("SIMPLE_RADIAL", (0.05,))
    assert (cameras[7].width, cameras[7].height) == (40, 30)
    assert cameras[7].intrinsics == ((30.0, 0.0, 19.5), (0.0, 31.0, 14.5), (0.0, 0.0, 1.0))
    assert cameras[7].distortion is None


def test_poses_are_inverted_and_images_stand_in_natural_order(model_folder):
    first, second = read_model(model_folder).images
    assert (first.name, second.name) == ("frame9.png", "frame10.png")
    assert np.array_equal(first.world_from_camera[:3, 3], [0, 0, 1])
    # The quaternion (1, 1, 1, 1) / 2 turns x to y to z: camera_from_world = [[0, 0, 1], [1, 0, 0], [0, 1, 0]].
    assert np.allclose(second.world_from_camera[:3, :3], [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert np.allclose(second.world_from_camera[:3, 3], [-2, -3, -1])


def test_points_and_observations_come_along_unless_they_are_not_wanted(model_folder):
    model = read_model(model_folder)
    assert model.points.ids.tolist() == [4, 9]
    assert model.points.xyz.tolist() == [[-1, 0, 5], [1, 2, 3]]
    assert model.points.rgb.tolist() == [[1, 2, 3], [255, 0, 7]]
    assert model.points.error.tolist() == [0.25, 0.5]
    assert model.points.track_lengths.tolist() == [1, 1]
    assert model.images[1].pixels.tolist() == [[10, 20], [0.5, 1.5], [2.5, 2.5]]
    assert model.images[1].point_ids.tolist() == [4, 9, -1]
    assert model.images[0].point_ids.tolist() == []
    bare = read_model(model_folder, points=False)
    assert len(bare.points.ids) == len(bare.images[1].point_ids) == 0
    assert np.array_equal(bare.images[1].world_from_camera, model.images[1].world_from_camera)


def test_binary_wins_over_text(tmp_path):
    write_binary(write_text(tmp_path))
    (tmp_path / "cameras.txt").write_text("damaged")
    assert len(read_model(tmp_path).cameras) == 2
    assert find_models(tmp_path) == [tmp_path]


def test_a_folder_without_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match="holds no COLMAP model: expected cameras and images"):
        read_model(tmp_path)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_a_file_cut_anywhere_is_refused_with_its_name(tmp_path, name):
    path = write_binary(tmp_path) / f"{name}.bin"
    data = path.read_bytes()
    for length in range(len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=rf"{name}.bin (cannot be read|states|names)"):
            read_model(tmp_path)


def test_a_count_larger_than_the_file_asks_for_no_memory(tmp_path):
    path = write_binary(tmp_path) / "points3D.bin"
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])
    with pytest.raises(DataError, match="more than the file can hold"):
        read_model(tmp_path)


def test_unknown_cameras_are_named(tmp_path):
    path = write_text(tmp_path) / "cameras.txt"
    text = path.read_text()
    path.write_text(text.replace("PINHOLE", "EQUIRECTANGULAR"))
    with pytest.raises(DataError, match=r"is of the model EQUIRECTANGULAR, expected one of SIMPLE_PINHOLE"):
        read_model(tmp_path)
    path.write_text(text.replace("\n7 ", "\n8 "))
    with pytest.raises(DataError, match=r"names the cameras \[7\]"):
        read_model(tmp_path)


def test_what_colmap_writes_is_read(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    theirs = pycolmap.Reconstruction(write_text(tmp_path / "text"))
    (tmp_path / "binary").mkdir()
    theirs.write_binary(str(tmp_path / "binary"))
    ours, again = read_model(tmp_path / "text"), read_model(tmp_path / "binary")
    assert ours.cameras == again.cameras
    for left, right in zip(ours.images, again.images, strict=True):
        assert left.name == right.name
        assert np.allclose(left.world_from_camera, right.world_from_camera, atol=1e-12)
        pose = theirs.image(left.id).cam_from_world()
        assert np.allclose(np.linalg.inv(left.world_from_camera)[:3], pose.matrix())
    assert np.array_equal(ours.points.xyz, again.points.xyz)
