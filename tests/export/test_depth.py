import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.errors import OutputError
from distill3d.export.depth import depth_scale, quantize_depth, view_stem, write_depth
from tests.export.synthetic import room_reconstruction


@pytest.fixture(scope="module")
def room():
    return room_reconstruction(2, 20, 30)


def test_a_png_times_its_scale_is_the_depth_and_0_is_unknown(room, tmp_path):
    depth = room.prediction.depth.clone()
    depth[0, 1, 3, 4] = 0
    depth[0, 1, 3, 5] = float("nan")
    holed = dataclasses.replace(room, prediction=dataclasses.replace(room.prediction, depth=depth))
    write_depth(tmp_path, holed)
    record = json.loads((tmp_path / "depth.json").read_text())
    for index, view in enumerate(record["views"]):
        with Image.open(tmp_path / view["file"]) as image:
            counts = np.asarray(image)
            assert float(image.text["depth_scale"]) == record["depth_scale"]
        assert counts.dtype == np.uint16
        expected = np.nan_to_num(depth[0, index].numpy())
        np.testing.assert_allclose(counts * record["depth_scale"], expected, atol=0.51 * record["depth_scale"])
    assert counts[3, 4] == 0
    assert counts[3, 5] == 0


def test_metric_depth_is_in_millimetres_and_other_depth_uses_the_full_range():
    depth = np.array([[0.5, 3.0], [np.nan, 0.0]], dtype=np.float32)
    assert depth_scale(depth, is_metric=True) == 0.001
    assert quantize_depth(depth, depth_scale(depth, is_metric=False)).max() == 65535
    assert depth_scale(depth * 100, is_metric=True) == pytest.approx(300 / 65535)


def test_a_known_depth_is_never_rounded_to_unknown():
    assert quantize_depth(np.array([[1e-9, 0.0]], dtype=np.float32), 1.0).tolist() == [[1, 0]]


def test_maps_without_any_depth_have_a_scale_all_the_same():
    assert depth_scale(np.zeros((2, 3), dtype=np.float32), is_metric=False) > 0


def test_an_npz_holds_plain_float32_arrays_and_nothing_pickled(room, tmp_path):
    write_depth(tmp_path, room, png=False)
    with np.load(tmp_path / "0001_view_1.npz", allow_pickle=False) as record:
        assert record["depth"].dtype == np.float32
        np.testing.assert_array_equal(record["depth"], room.prediction.depth[0, 1].numpy())
        np.testing.assert_array_equal(record["confidence"], room.prediction.confidence_world[0, 1].numpy())
        np.testing.assert_array_equal(record["intrinsics"], room.prediction.intrinsics[0, 1].numpy())
        np.testing.assert_array_equal(record["world_from_camera"], room.prediction.world_from_camera[0, 1].numpy())
        assert record["keep"].dtype == np.bool_
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/b/IMG 1.JPG", "0007_IMG_1"),
        ("..\\..\\evil.png", "0007_evil"),
        ("夜.png", "0007"),
        ("", "0007"),
        ("x" * 300, "0007_" + "x" * 60),
    ],
)
def test_any_name_gives_a_safe_file_name(name, stem):
    assert view_stem(7, name) == stem


def test_no_depth_is_an_error(room, tmp_path):
    with pytest.raises(OutputError, match="no depth"):
        write_depth(tmp_path, dataclasses.replace(room, prediction=dataclasses.replace(room.prediction, depth=None)))


def test_one_pixel_maps_are_written(tmp_path):
    tiny = room_reconstruction(1, 1, 1)
    write_depth(tmp_path, tiny)
    with Image.open(tmp_path / "0000_view_0.png") as image:
        assert np.asarray(image).shape == (1, 1)
    assert torch.isfinite(tiny.prediction.depth).all()
