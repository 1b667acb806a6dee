import json

import pytest
import torch

from distill3d.data.datasets.annotated import write_annotated_scene
from tests.cli.calls import call
from tests.data.pictures import save_picture


@pytest.fixture
def photos(tmp_path):
    for scene in ("kitchen", "yard"):
        for number in range(3):
            save_picture(tmp_path / f"photos/{scene}/{number}.jpg", seed=number)
    return tmp_path / "photos"


def said(*words):
    done = call("manifest", *words, "--json")
    assert done.code == 0, done.err
    return done.data


def test_building_again_reads_what_is_new_alone(photos, tmp_path):
    out = tmp_path / "m.parquet"
    assert said("build", photos, "--out", out)["parts"] == {"read": 2, "kept": 0, "dropped": 0}
    save_picture(photos / "hall/0.jpg", seed=9)
    (photos / "yard/4.jpg").write_bytes(b"")
    built = said("build", photos, "--out", out)
    assert built["parts"] == {"read": 2, "kept": 1, "dropped": 0}
    assert (built["frames"], built["scenes"]) == (7, 3)
    assert [entry["path"] for entry in built["skipped"]] == ["yard/4.jpg"]
    assert said("build", photos, "--out", out, "--fresh")["parts"]["read"] == 3


def test_a_file_that_is_no_manifest_is_not_replaced_unless_told(photos, tmp_path):
    out = tmp_path / "m.parquet"
    out.write_text("mine")
    refused = call("manifest", "build", photos, "--out", out)
    assert refused.code == 2
    assert "say --fresh to replace the file" in refused.err
    assert out.read_text() == "mine"
    assert said("build", photos, "--out", out, "--fresh")["frames"] == 6


def test_check_names_the_scene_that_is_wrong_and_draws_it(tmp_path):
    for name, step in (("right", 0.1), ("wrong", 100.0)):
        poses = torch.eye(4).repeat(4, 1, 1)
        poses[:, 0, 3] = torch.arange(4) * step
        depth = 2 + torch.linspace(0, 1, 32).expand(4, 24, 32) + (torch.arange(4) * 0.05)[:, None, None]
        write_annotated_scene(
            tmp_path / "data" / name,
            torch.rand(4, 3, 24, 32),
            intrinsics=torch.tensor([[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]]).repeat(4, 1, 1),
            world_from_camera=poses,
            depth=depth,
        )
    said("build", tmp_path / "data", "--out", tmp_path / "m.parquet")
    checked = call("manifest", "check", tmp_path / "m.parquet", "--html", tmp_path / "check.html")
    assert checked.code == 0
    assert "every file of 8 frames can be read" in checked.out
    assert "wrong: no pixel is seen twice" in checked.out
    assert "the depth is 1000 times too small for the poses" in checked.out
    assert (tmp_path / "check.html").stat().st_size > 10_000
    compared = said("check", tmp_path / "m.parquet", "--all")["scenes_compared"]
    assert {scene["scene"]: scene["share"] for scene in compared}["wrong"] is None


def test_show_writes_a_page(photos, tmp_path):
    said("build", photos, "--out", tmp_path / "m.parquet")
    shown = said("show", tmp_path / "m.parquet", "--html", tmp_path / "sheet.html")
    assert shown["page"] == str(tmp_path / "sheet.html")
    assert "kitchen" in (tmp_path / "sheet.html").read_text()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("build", "--rate", 0), "rate is 0.0, expected frames per second above 0"),
        (("build", "--max-frames", 0), "max_frames is 0, expected 1 or more"),
        (("build", "--workers", -1), "workers is -1"),
        (("build", "--test-fraction", 2), "test_fraction is 2.0"),
        (("check", "--frames", -1), "frames is -1, expected 0 or more"),
        (("check", "--scenes", -2), "scenes is -2, expected 0 or more"),
        (("check", "--root", "nowhere"), "The root nowhere is no folder on this machine"),
    ],
)
def test_numbers_and_folders_that_make_no_sense_are_refused(photos, tmp_path, words, reason):
    said("build", photos, "--out", tmp_path / "m.parquet")
    verb, *rest = words
    where = (photos, "--out", tmp_path / "n.parquet") if verb == "build" else (tmp_path / "m.parquet",)
    refused = call("manifest", verb, *where, *rest)
    assert refused.code == 2
    assert reason in refused.err


def test_layouts_lists_what_can_be_read():
    listed = said("layouts")["layouts"]
    assert {"photos", "video", "colmap", "nerfstudio", "table", "annotated"} <= set(listed)
    assert json.dumps(listed)
    text = call("manifest", "layouts").out
    assert text.startswith("Your own:")


def test_a_layout_can_be_named(photos, tmp_path):
    assert said("build", photos, "--out", tmp_path / "m.parquet", "--dataset", "photos")["datasets"] == ["photos"]
    refused = call("manifest", "build", photos, "--out", tmp_path / "n.parquet", "--dataset", "nerfstudio")
    assert refused.code == 2
    assert "does not look like nerfstudio" in refused.err
