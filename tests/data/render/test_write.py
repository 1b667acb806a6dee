import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.data.datasets.annotated import DATASET
from distill3d.data.render.caster import render
from distill3d.data.render.place import place_cameras, place_scene
from distill3d.data.render.write import render_place, render_rooms
from distill3d.errors import OutputError

SMALL = {"size": (28, 42), "num_train": 3, "num_test": 2}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_what_was_rendered(tmp_path):
    folder = render_place(tmp_path / "place", **SMALL)
    rows = list(DATASET.scan(folder))
    assert [row.split for row in rows] == ["train"] * 3 + ["test"] * 2
    assert all(row.is_metric and row.licence.startswith("CC0") for row in rows)
    cameras = place_cameras((28, 42), num_train=3, num_test=2, seed=0)
    views = render(place_scene(), cameras.world_from_camera[None], cameras.intrinsics[None], (28, 42))
    for number, row in enumerate(rows):
        assert np.allclose(row.world_from_camera, cameras.world_from_camera[number])
        assert np.allclose(row.intrinsics, cameras.intrinsics[number])
        assert np.allclose(np.load(folder / row.depth.path), views.depth[0, number], atol=1e-6)
        image = torch.from_numpy(np.array(Image.open(folder / row.image.path))).permute(2, 0, 1) / 255
        assert (image - views.images[0, number]).abs().max() < 1 / 255


def test_the_same_settings_give_the_same_bytes(tmp_path):
    first, second = (render_place(tmp_path / name, **SMALL) for name in ("a", "b"))
    assert contents(first) == contents(second)


def test_a_complete_folder_is_left_alone(tmp_path):
    folder = render_place(tmp_path, **SMALL)
    image = next(folder.rglob("*.png"))
    image.write_bytes(b"untouched")
    render_place(tmp_path, **SMALL)
    assert image.read_bytes() == b"untouched"
    render_place(tmp_path, **SMALL, overwrite=True)
    assert image.read_bytes() != b"untouched"


def test_other_settings_are_refused_by_name(tmp_path):
    render_place(tmp_path, **SMALL)
    with pytest.raises(OutputError, match="seed"):
        render_place(tmp_path, **SMALL, seed=1)


def test_a_half_written_folder_is_finished(tmp_path):
    whole = contents(render_place(tmp_path / "whole", **SMALL))
    half = render_place(tmp_path / "half", **SMALL)
    (half / "scene.json").unlink()
    next(half.rglob("*.npy")).unlink()
    assert contents(render_place(half, **SMALL)) == whole


def test_rooms_get_a_folder_each_and_grow_without_changing(tmp_path):
    few = render_rooms(tmp_path / "few", count=1, views=2, size=(28, 28))
    many = render_rooms(tmp_path / "many", count=2, views=2, size=(28, 28))
    assert len(many) == 2
    assert contents(few[0]) == contents(many[0])
    assert contents(many[0]) != contents(many[1])
    assert {row.scene for row in DATASET.scan(tmp_path / "many")} == {"room_000000", "room_000001"}
